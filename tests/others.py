"""What other programs took of the machine while a test measured: without free cores it shows nothing."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

BUSY_CORES = 0.3
"""Cores in the hands of others from which on a measurement of this machine says nothing."""


class Others:
    """How many cores programs other than this test and its workers kept busy since it was made.

    What the hypervisor took (steal) is among it.
    """

    def __init__(self) -> None:
        self._start_s, self._busy_s, self._own_s = time.monotonic(), self._busy(), self._own()

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    @staticmethod
    def _own() -> float:
        """This process, the workers that have ended, and those that live."""
        living = 0.0
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                living += sum(child.cpu_times()[:2])
        return sum(os.times()[:4]) + living

    def cores(self) -> float:
        wall_s = time.monotonic() - self._start_s
        return (self._busy() - self._busy_s - (self._own() - self._own_s)) / wall_s
