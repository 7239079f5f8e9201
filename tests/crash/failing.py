"""A disk that fails at one write of a whole program: the loop goes on, and it is said once, and doubted."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.crash.faults import FailingDisk
from tests.crash.programs import RECORDING, TRAINED
from tests.forked import Program, verb

DOORS: Final = ("run", "trace", "ProfiledDataLoader")
SAID: Final = "cannot be written any more"
_NEVER: Final = 10**9
_IN_PLACE: Final[list[AbstractContextManager[FailingDisk]]] = []
"""The disk of this process, which would be taken out with the last reference to it."""


@dataclass
class Failure:
    """A program whose n-th write has met the end of its disk, and all after it."""

    program: str
    nth: int
    faults: list[str] = field(default_factory=list)


class _CountingDisk(FailingDisk):
    """Keeps the number of writes in a file at each of them: a forked process ends without `atexit`."""

    def __init__(self, nth: int, count: Path) -> None:
        super().__init__(nth)
        self._count = count
        count.write_text("0")

    def allows(self, size_bytes: int) -> int:
        try:
            return super().allows(size_bytes)
        finally:
            self._count.write_text(str(self.writes))


def failing_writes(root: Path, each: int, seed: int) -> list[Failure]:
    """Fail `each` of the writes of each door, chosen at random, one in a program; all where they are few."""
    rng = random.Random(seed)
    failures = []
    for name in DOORS:
        writes = _writes(root, name)
        for nth in sorted(rng.sample(range(writes), min(each, writes))):
            failures.append(_fail(root, name, nth))
            print(failures[-1], file=sys.stderr, flush=True)
    return failures


def on_disk_that_fails(main: Callable[[], None], place: Path, nth: int) -> Callable[[], None]:
    """Return `main` on a disk that fails, to its very end, and counts its writes."""

    def on_disk() -> None:
        in_place = _CountingDisk(nth, place / "writes").in_place(place / "run")
        _IN_PLACE.append(in_place)
        in_place.__enter__()
        main()

    return on_disk


def _begin(root: Path, name: str, nth: int) -> tuple[Path, Program]:
    place = Path(tempfile.mkdtemp(dir=root))
    (place / "log").write_bytes(bytes(24))
    return place, Program(on_disk_that_fails(RECORDING[name](place), place, nth), place)


def _writes(root: Path, name: str) -> int:
    """Count the writes of a program whose disk does not fail."""
    place, program = _begin(root, name, _NEVER)
    done = program.finished()
    assert done.returncode == 0, done.stderr
    writes = int((place / "writes").read_text())
    assert writes > 0, "the disk was not in place"
    shutil.rmtree(place)
    return writes


def _fail(root: Path, name: str, nth: int) -> Failure:
    failure = Failure(name, nth)
    place, program = _begin(root, name, nth)
    done = program.finished()
    if int((place / "writes").read_text()) <= nth:
        return failure  # a busier machine than before: it has flushed less often
    if "Traceback" in done.stderr and nth > 0:
        failure.faults.append(f"traceback: {done.stderr[-1500:]}")
    if nth == 0:
        if done.returncode == 0 or (place / "run").exists():
            failure.faults.append("a run that could not begin has left something, or was not refused")
    else:
        if name != "run" and (done.returncode != 0 or not (place / TRAINED).exists()):
            failure.faults.append(f"the loop did not go on: rc {done.returncode}: {done.stderr[-500:]}")
        if not _is_whole(place / "run", done.stderr):
            if done.stderr.count(SAID) != 1:
                failure.faults.append(f"not said once: {done.stderr[-500:]}")
            _check_doubts(failure, place)
    shutil.rmtree(place)
    return failure


def _is_whole(run: Path, said: str) -> bool:
    """Tell whether the record was whole before the disk failed, and its page alone is told to be missing."""
    status = json.loads((run / "run.json").read_text())["status"] if (run / "run.json").exists() else None
    return (
        status == "complete"
        and not list(run.glob("*.arrows"))
        and SAID not in said
        and "report.html was not written" in said
    )


def _check_doubts(failure: Failure, place: Path) -> None:
    reported = Program(verb("report", "--json", "run"), place).finished()
    if reported.returncode != 0:
        failure.faults.append(f"unreadable: {reported.stderr[-500:]}")
        return
    doubts = {each["name"] for each in json.loads(reported.stdout)["verdict"]["doubts"]}
    if not doubts & {"record-cut", "torn"}:
        failure.faults.append(f"no doubt says that the record is cut: {doubts}")
