"""The process that sends a record: `main` with the arguments ROOT URL EVERY_S PATIENCE_S REMOVES.

It reads orders from its standard input, a line of JSON each: `{"directory": PATH}` says where the run is
written, `{"end": true}` that it is whole. It sends what is new at regular intervals. It outlives the program
that it sends for, however that ends, until all is sent or its patience is over. Its one line of output says
what was left.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeprof.errors import TraceError, first_line
from pipeprof.record.remote.outgoing import Outgoing
from pipeprof.redact import redact

LOOK_S: Final = 0.2
"""Time between two looks at whether the program has ended."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""Time after a failure; twice as long after each further one, plus up to a half at random."""
_FOR_GOOD: Final = (TraceError, PermissionError, FileNotFoundError)
_NO_CREDENTIALS: Final = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
"""Failures that retrying does not fix; clients' classes by name."""


class Sender:
    """Sends one run to its place until it is whole there."""

    def __init__(self, root: Path, url: str, every_s: float, patience_s: float, removes: str) -> None:
        self._root, self._url, self._every_s, self._patience_s = root, url, every_s, patience_s
        self._removes = removes
        self._parent = os.getppid()
        self._outgoing: Outgoing | None = None
        self._directory = root
        self._ended = False
        self._why = ""
        self._unread = b""

    def run(self) -> list[str]:
        """Send until all is sent or patience is over; return what is left, and keep `why`."""
        due_s = delay_s = 0.0
        deadline_s = float("inf")
        while True:
            self._read_orders()
            if self._ended and deadline_s == float("inf"):
                deadline_s, due_s = time.monotonic() + self._patience_s, 0.0
            if time.monotonic() < due_s:
                continue
            try:
                last = self._ended
                self._send(last)
                if last:
                    return []
                delay_s, self._why = 0.0, ""
                due_s = time.monotonic() + self._every_s
            except Exception as error:  # clients raise what they like
                self._why = redact(f"{type(error).__name__}: {first_line(error)}")
                if self._ended and (_is_for_good(error) or time.monotonic() >= deadline_s):
                    return self._left()
                delay_s = min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * delay_s))
                due_s = time.monotonic() + delay_s * random.uniform(1.0, 1.5)
                due_s = min(due_s, max(deadline_s, time.monotonic()))

    @property
    def why(self) -> str:
        """Return the reason of the last failure; empty if there is none."""
        return self._why

    def _send(self, last: bool) -> None:
        if self._outgoing is None:
            self._outgoing = Outgoing(self._root, self._url)
        outgoing = self._outgoing
        if not last:
            outgoing.send(self._directory)
        elif self._removes == "tree":
            outgoing.send_tree()
            outgoing.remove(self._root)
        else:
            outgoing.send_part(self._directory)
            if self._removes == "own":
                outgoing.remove(self._directory)

    def _left(self) -> list[str]:
        if self._outgoing is None:
            return [str(self._directory)]
        with suppress(OSError):
            top = self._root if self._removes == "tree" else self._directory
            return [str(path) for path in self._outgoing.left(top)]
        return [str(self._directory)]

    def _read_orders(self) -> None:
        """Take the orders that have arrived, waiting briefly for one."""
        if self._ended:
            time.sleep(LOOK_S / 4)
            return
        if os.getppid() != self._parent:
            self._ended = True
            return
        ready, _, _ = select.select([0], [], [], LOOK_S)
        if not ready:
            return
        data = os.read(0, 1 << 16)
        self._ended = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "directory" in order:
                self._directory = Path(order["directory"])
            self._ended = self._ended or "end" in order


def _is_for_good(error: Exception) -> bool:
    return isinstance(error, _FOR_GOOD) or type(error).__name__ in _NO_CREDENTIALS


def main() -> None:
    """Send, and say what is left."""
    root, url, every_s, patience_s, removes = sys.argv[1:]
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a scheduler sends them to all of a job
        signal.signal(name, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(10)
    sender = Sender(Path(root), url, float(every_s), float(patience_s), removes)
    left = sender.run()
    with suppress(OSError):  # nothing waits for it any longer
        print(json.dumps({"left": left, "why": sender.why}), flush=True)
