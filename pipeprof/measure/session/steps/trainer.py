"""Finds the thread that trains, if a thread other than the main one takes the batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class TrainerWatch:
    """Wait for the first step of any optimiser; its hook in torch is taken out then, or by `stop`."""

    def __init__(self, consumer: int | None, report: Callable[[str], None]) -> None:
        """Call `report` with the name of the thread that steps first, if it is not the `consumer`."""
        self._consumer, self._report = consumer, report
        self._handle: Any = None
        with suppress(ImportError, AttributeError):  # an older torch has no such hook
            from torch.optim.optimizer import register_optimizer_step_post_hook

            self._handle = register_optimizer_step_post_hook(self._stepped)

    def stop(self) -> None:
        """Stop waiting."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.remove()

    def _stepped(self, *arguments: Any) -> None:
        self.stop()
        thread = threading.current_thread()
        if thread.ident != self._consumer:
            self._report(thread.name)
