"""Observes a job from inside, from pipeprof's coming to its leaving.

The main thread enters and leaves, between two bytecodes; a thread of ours waits in between for a word from
outside, for the number of steps, or for pipeprof's death.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import PipeprofError
from pipeprof.measure.attach.control import Control
from pipeprof.measure.attach.main_thread import call_soon
from pipeprof.measure.attach.memory import give_back
from pipeprof.measure.attach.watch import (
    AttachedIterator,
    AttachedLoader,
    is_making_iterator,
    live_iterators,
    loader_of,
)
from pipeprof.measure.host.telemetry import Telemetry
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.session.session import Session
from pipeprof.record.schema import Status

LOOK_EVERY_S: Final = 0.1
LAST_PATIENCE_S: Final = 0.5
"""For the workers to send what they have not yet sent: one in a long native call, or without sampled lines
and without a batch to make, does not."""
_LAST_LOOK_EVERY_S: Final = 0.01
_PATIENCE_S: Final = 10.0
"""For the main thread to leave. A long native call may keep it; it leaves when it comes back."""


class Attachment:
    """Observation of this process by a pipeprof outside."""

    current: Attachment | None = None

    def __init__(self, control: Control, asked: dict[str, Any]) -> None:
        self._control, self._asked = control, asked
        self._pid = os.getpid()
        name = Path(sys.argv[0]).name if sys.argv else ""
        self.session = Session(Path(asked["out"]), "attach", name, lines=asked["lines"])
        if asked["hang_after"]:
            self.session.watch_hangs(asked["hang_after"], say=lambda text: None)
        self._telemetry = Telemetry(self.session.telemetry, rate_hz=asked["telemetry_hz"])
        self._loaders: list[AttachedLoader] = []
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._stay, name="pipeprof-attached", daemon=True)

    @property
    def is_leaving(self) -> bool:
        """Return whether its pipeprof is gone or has had enough."""
        return self._control.is_over(self._asked) is not None

    def enter(self) -> list[int]:
        """Watch the iterators that are here, and those to come. Return the workers that must be entered."""
        Attachment.current = self
        workers = []
        for iterator in live_iterators():
            watch = self._observer_of(loader_of(iterator)).enter(iterator)
            if watch is None:
                continue
            for worker, pid in enumerate(watch.pids()):
                if pid:
                    workers.append(pid)
                    path = self._control.directory / f"worker-{pid}.pickle"
                    path.write_bytes(pickle.dumps((worker, watch.probe)))
        hook.observe_all(self._observer_of)
        self._telemetry.__enter__()
        self._thread.start()
        atexit.register(self._at_exit)
        return workers

    def _observer_of(self, loader: Any) -> AttachedLoader:
        known = next((each for each in self._loaders if each.is_of(loader)), None)
        if known is None:
            known = self.session.watch_with(AttachedLoader, loader)
            self._loaders.append(known)
        return known

    def _stay(self) -> None:
        """Stay until there is a reason to leave."""
        steps = self._asked["steps"]
        while True:
            time.sleep(LOOK_EVERY_S)
            why = self._control.is_over(self._asked)
            if why is None and steps and self.session.steps.past_warmup >= steps:
                why = "stopped"
            if why is not None or not self.session.active:
                break
        watched = [watch for loader in self._loaders for watch in loader.iterators]
        call_soon(self._leave_loop)
        self._left.wait(_PATIENCE_S)
        _await_last(watched)
        self._close("interrupted" if why == "gone" else "complete")
        give_back()
        Attachment.current = None
        self._control.say(state="left", steps=self.session.steps.taken)
        if self._control.is_over(self._asked) == "gone":  # if only now: it would have removed it
            self._control.remove()

    def _leave_loop(self) -> None:
        """Take everything of ours out of the loop. Called by the main thread."""
        if os.getpid() != self._pid:  # it was forked meanwhile
            return
        hook.observe_no_more(self._observer_of)
        for loader in self._loaders:
            loader.leave()
        self.session.steps.sink.end()
        self.session.steps.stop_sampling()
        self._left.set()

    def give_up(self) -> None:
        """Undo a half-made entry. Called by the main thread."""
        self._leave_loop()
        self._close("failed")
        Attachment.current = None

    def _close(self, status: Status) -> None:
        self._telemetry.__exit__()
        if self._asked["telemetry_hz"]:
            self.session.amend(self._telemetry.entered)
        self.session.close(status)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """End the observation: the job ends."""
        if os.getpid() == self._pid:
            self.session.close("complete")


def _await_last(watched: list[AttachedIterator]) -> None:
    """Have the workers send their lines and counts of the last second, which are drained with the rest."""
    for each in watched:
        each.ask_last()
    deadline = time.monotonic() + LAST_PATIENCE_S
    while time.monotonic() < deadline and any(each.is_awaited() for each in watched):
        time.sleep(_LAST_LOOK_EVERY_S)
    watched.clear()  # the caller stays a while, and would keep them


def enter_job(directory: str, began_ns: int) -> None:
    """Begin to observe this process, and say so. Called by the main thread, between two bytecodes."""
    control = Control(directory)
    asked = control.request()
    if Attachment.current is not None and Attachment.current.is_leaving:
        control.say(state="later")
        return
    if Attachment.current is not None or any(hook.is_watched(each) for each in live_iterators()):
        control.say(state="refused", why="observed")
        return
    if is_making_iterator():
        control.say(state="later")
        return
    try:
        attachment = Attachment(control, asked)
    except PipeprofError as error:
        control.say(state="refused", why="error", problem=error.problem, remedy=error.remedy)
        return
    try:
        workers = attachment.enter()
    except BaseException:
        attachment.give_up()
        raise
    control.say(
        state="attached",
        workers=workers,
        directory=str(attachment.session.directory),
        took_ns=time.monotonic_ns() - began_ns,
    )
