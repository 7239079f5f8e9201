"""The programs that are killed: each door to a record and each verb that writes from one, in a short life."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import psutil

from tests.factory import MS, Plan, make_run
from tests.forked import verb

LOOP_S: Final = 3.0
_STEP: Final = struct.Struct("<qqq")
OLD_JOB: Final = Path(__file__).parent.parent / "record" / "old_runs" / "job_of_two_ranks"

SCENARIO: Final = f"""
data: {{format: tensor_files, samples: 128, sample_bytes: 4000}}
storage: {{tier: nvme}}
loader: {{batch_size: 4, workers: 2, persistent_workers: true}}
accelerator: {{kind: emulated, step_ms: 5}}
run: {{seconds: {LOOP_S:g}, warmup_steps: 5}}
"""

SCRIPT: Final = f"""
import time
from pathlib import Path
from torch.utils.data import DataLoader
from tests.crash.programs import TRAINED, Slow, StepLog

log = StepLog(Path("log"))
end = time.monotonic() + {LOOP_S:g}
while time.monotonic() < end:
    for batch in DataLoader(Slow(400), batch_size=4, num_workers=2):
        log.step()
        if time.monotonic() > end:
            break
TRAINED.touch()
"""


class StepLog:
    """The script's own account of its steps, in a file that the kernel keeps when the script is killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _STEP.size)
        self._steps = self._first_ns = 0

    def step(self) -> None:
        """Note that the loop has taken a batch."""
        now_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or now_ns
        self._steps += 1
        _STEP.pack_into(self._map, 0, self._steps, self._first_ns, now_ns)


def logged(path: Path) -> tuple[int, int, int]:
    """Return the number of steps, and the times of the first and the last, in ns."""
    steps, first_ns, last_ns = _STEP.unpack(path.read_bytes())
    return steps, first_ns, last_ns


class Slow:
    """Data set of samples that take 2 ms, or as long as is said."""

    def __init__(self, samples: int, takes_s: float = 0.002) -> None:
        self._samples, self._takes_s = samples, takes_s

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> int:
        time.sleep(self._takes_s)
        return index


def _run(place: Path) -> Callable[[], None]:
    (place / "short.yaml").write_text(SCENARIO)

    def main() -> None:
        from pipeprof.measure.bench.training import Loop

        log, submit = StepLog(place / "log"), Loop._submit

        def submit_and_log(self: Any, batch: Any) -> None:
            log.step()
            submit(self, batch)

        Loop._submit = submit_and_log  # type: ignore[method-assign]
        verb("run", "short.yaml", "--out", "run")()

    return main


def _trace(place: Path) -> Callable[[], None]:
    (place / "script.py").write_text(SCRIPT)
    return verb("trace", "--out", "run", "script.py")


def _wrapper(place: Path) -> Callable[[], None]:
    def main() -> None:
        from pipeprof import ProfiledDataLoader

        log, end = StepLog(place / "log"), time.monotonic() + LOOP_S
        loader = ProfiledDataLoader(Slow(400), batch_size=4, num_workers=2, out="run", lines=True)
        while time.monotonic() < end:
            for _ in loader:
                log.step()
                if time.monotonic() > end:
                    break
        TRAINED.touch()

    return main


def _profile(place: Path, batch_size: int = 4, sample_s: float = 0.002) -> Callable[[], None]:
    def main() -> None:
        from torch.utils.data import DataLoader

        import pipeprof

        log, end = StepLog(place / "log"), time.monotonic() + LOOP_S
        dataset = Slow(100_000, sample_s)
        plain = DataLoader(dataset, batch_size, num_workers=2, persistent_workers=True)
        with pipeprof.profile(plain, out="run") as loader:
            for _ in loader:
                log.step()
                if time.monotonic() > end:
                    break
            loader.save("copy")

    return main


def _job() -> None:
    """Train for a while, in the working directory; note each step since somebody began to record it."""
    from torch.utils.data import DataLoader

    log, end, recorded = StepLog(Path("log")), time.monotonic() + LOOP_S, Path("run/run.json")
    while time.monotonic() < end:
        for number, _ in enumerate(DataLoader(Slow(400), batch_size=4, num_workers=2)):
            if recorded.exists():
                log.step()
            if number == 5:
                Path("trains").touch()
            if time.monotonic() > end:
                break
    TRAINED.touch()


def _attach(pid: int) -> None:
    """Attach to a job that has begun to train. What two processes say to each other lies here too."""
    tempfile.tempdir = str(Path.cwd())
    while not Path("trains").exists():
        if not _lives(pid):  # killed before
            return
        time.sleep(0.01)
    verb("attach", "--seconds", f"{LOOP_S:g}", "--out", "run", str(pid))()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _attached_job(place: Path) -> Callable[[], None]:
    def main() -> None:
        get_context("fork").Process(target=_attach, args=(os.getpid(),)).start()
        _job()

    return main


def _attaching(place: Path) -> Callable[[], None]:
    def main() -> None:
        job = get_context("fork").Process(target=_job)
        job.start()
        assert job.pid is not None
        _attach(job.pid)

    return main


def _report(place: Path) -> Callable[[], None]:
    _made(place)
    return verb("report", "run")


def _merge(place: Path) -> Callable[[], None]:
    shutil.copytree(OLD_JOB, place / "job")
    return verb("merge", "job")


def _export(form: str, file: str) -> Callable[[Path], Callable[[], None]]:
    def begin(place: Path) -> Callable[[], None]:
        _made(place)
        return verb("export", "run", "--to", form, "--out", file)

    return begin


def _made(place: Path) -> None:
    make_run(place / "run", Plan(batches=120, workers=2, stages={"read": 30 * MS, "decode": 60 * MS}))


def _unprobed(place: Path) -> Callable[[], None]:
    """Profile a loop with so many batches that some are made unprobed long before its end."""
    return _profile(place, batch_size=1, sample_s=0.0004)


UNPROBED: Final = "profile, short batches"
TRAINED: Final = Path("trained")
"""File of a job that has come to its end."""
ATTACHING: Final = "attach"
"""Program whose main process is pipeprof's: its job goes on when it is killed, and ends by itself."""
RECORDING: Final = {
    "run": _run,
    "trace": _trace,
    "ProfiledDataLoader": _wrapper,
    "profile": _profile,
    UNPROBED: _unprobed,
    "job attached to": _attached_job,
    ATTACHING: _attaching,
}
"""Programs that make a record; by name, what makes their `main` in a new directory."""
READING: Final = {
    "report": _report,
    "merge": _merge,
    "export perfetto": _export("perfetto", "trace.pftrace"),
    "export parquet": _export("parquet", "tables"),
}
PROGRAMS: Final = RECORDING | READING
