"""Runs one case on real workers and says what the diagnosis was."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeprof.analyse.analysis import Analysis
from pipeprof.devices import LINKS, AcceleratorModel, LinkModel
from pipeprof.measure.accelerator.emulated import EmulatedAccelerator
from pipeprof.measure.host.telemetry import Telemetry
from pipeprof.measure.session.session import Session
from pipeprof.record.decode import decode
from pipeprof.record.meta import RunMeta, StorageMeta
from pipeprof.scenario import Scenario

MS = 1_000_000
UNJUDGED = "unjudged"
"""Stands for any mechanism or none."""


@dataclass(frozen=True)
class Case:
    """One thing planted, and what must be said of it."""

    name: str
    cause: frozenset[str]
    fix: frozenset[str]
    run: Callable[[Path], None]
    detail: str | None = None
    size: tuple[str, float] | None = None
    """Owner and its share of the window, where the size is planted too."""
    mechanism: str | None = UNJUDGED
    """The mechanism that must be named; None where none may be."""
    or_unsure: str | None = None
    """A reason to abstain that is as right, where the machine's own disk decides which of the two is true."""
    never: str | None = None
    """A mechanism that must not be named, whatever else is."""
    waits: bool = False
    """True where nearly all of its time is spent waiting: other programs on the cores hardly change it."""
    quick: bool = False
    """True where it takes some seconds of one core and needs no second one."""
    needs: Callable[[], str] = field(default=lambda: "")
    """Why it cannot run here; empty where it can."""

    def allows(self, mechanism: str | None) -> bool:
        """Whether this mechanism, or none, may be named."""
        if self.never is not None:
            return mechanism != self.never
        return self.mechanism in (UNJUDGED, mechanism)


@dataclass(frozen=True)
class Loop:
    """A training loop over an emulated accelerator."""

    step_ms: float = 10.0
    steps: int = 60
    seconds: float = 20.0
    """The loop ends after so long too, where other programs have the cores."""
    warmup: int = 6
    sync: bool = False
    pinned: bool = False
    link: LinkModel = LINKS["pcie-gen3"]
    main: Callable[[], None] | None = None
    """The loop's own Python, after each step."""
    epochs: int = 1
    taken: int | None = None
    """Batches after which the loop leaves each iterator; None for all."""
    storage: dict[str, Any] = field(default_factory=dict)


def train(out: Path, dataset: Any, loop: Loop, **loader_arguments: Any) -> None:
    """Run `loop` over a torch DataLoader of `dataset`, observed, into `out`."""
    model = AcceleratorModel("planted", round(loop.step_ms * MS), link=loop.link)
    device = EmulatedAccelerator(model, sync=loop.sync, pinned=loop.pinned)
    meta = RunMeta(
        accelerator=device.describe(),
        emulated=("accelerator: planted",),
        storage=decode(StorageMeta, loop.storage),
    )
    with Session(out, "bench", out.name, meta, warmup_steps=loop.warmup, device=True) as session:
        with Telemetry(session.telemetry):
            loader = session.loader(dataset, **loader_arguments)
            step, end_s = 0, time.monotonic() + loop.seconds
            for _ in range(loop.epochs):
                if step >= loop.steps:
                    break
                step = _epoch(session, device, loader, loop, step, end_s)
            device.synchronize()
            session.steps.add_device_times(device.finished())
        session.event("run_end")


def _epoch(
    session: Session, device: EmulatedAccelerator, loader: Any, loop: Loop, step: int, end_s: float
) -> int:
    device.request(step)
    for taken, batch in enumerate(loader, 1):
        device.submit(step, batch)
        session.steps.launched(step)
        if loop.main is not None:
            loop.main()
        session.steps.add_device_times(device.finished())
        step += 1
        if step >= loop.steps or time.monotonic() >= end_s or taken == loop.taken:
            break
        device.request(step)
    return step


def scenario(**parts: Any) -> Callable[[Path], None]:
    """A run of the bench."""

    def measured(out: Path) -> None:
        from pipeprof.measure.bench.run import run

        run(Scenario.model_validate({"name": out.name, **parts}), out)

    return measured


def looped(
    make: Callable[[Path], Any], loop: Loop, around: Callable[[], Any] | None = None, **loader_arguments: Any
) -> Callable[[Path], None]:
    """A run of `train` over what `make(directory)` gives, inside the context `around`."""

    def measured(out: Path) -> None:
        with around() if around else nullcontext():
            train(out, make(out), loop, **loader_arguments)

    return measured


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Other programs that keep `count` cores busy: orphans, so that nobody takes them for our workers."""
    command = f"{shlex.quote(sys.executable)} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    pids = [int(subprocess.check_output(["sh", "-c", command])) for _ in range(count)]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


QUOTA_GROUP = Path("/sys/fs/cgroup/cpu/pipeprof-diagnosis")


def no_quota_here() -> str:
    """Why no CPU quota can be set on this machine; empty where it can."""
    if os.geteuid() != 0 or not (QUOTA_GROUP.parent / "cpu.cfs_quota_us").exists():
        return "needs root and the cpu controller of cgroup v1"
    return ""


@contextmanager
def quota(cores: float) -> Iterator[None]:
    """This process and its workers may use `cores` cores."""
    QUOTA_GROUP.mkdir(exist_ok=True)
    (QUOTA_GROUP / "cpu.cfs_period_us").write_text("50000")
    (QUOTA_GROUP / "cpu.cfs_quota_us").write_text(str(round(50_000 * cores)))
    (QUOTA_GROUP / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (QUOTA_GROUP.parent / "cgroup.procs").write_text(str(os.getpid()))
        QUOTA_GROUP.rmdir()


def said(answer: Analysis) -> str:
    """Cause and detail, as the matrix names them."""
    verdict = answer.verdict
    return f"{verdict.cause} ({verdict.detail})" if verdict.detail else verdict.cause
