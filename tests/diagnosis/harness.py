"""Runs one case on real workers and says what the diagnosis was."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeprof.analyse.answer import Answer
from pipeprof.devices import LINKS, AcceleratorModel, LinkModel
from pipeprof.measure.emulated_accelerator import EmulatedAccelerator
from pipeprof.measure.machine import machine_facts
from pipeprof.measure.session import Session
from pipeprof.measure.telemetry import Telemetry
from pipeprof.scenario import Scenario

MS = 1_000_000


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
    needs: Callable[[], str] = field(default=lambda: "")
    """Why it cannot run here; empty where it can."""


@dataclass(frozen=True)
class Loop:
    """A training loop over an emulated accelerator."""

    step_ms: float = 10.0
    steps: int = 60
    warmup: int = 6
    sync: bool = False
    pinned: bool = False
    link: LinkModel = LINKS["pcie-gen3"]
    main: Callable[[], None] | None = None
    """The loop's own Python, after each step."""
    epochs: int = 1
    storage: dict[str, Any] = field(default_factory=dict)


def train(out: Path, dataset: Any, loop: Loop, **loader_arguments: Any) -> None:
    """Run `loop` over a torch DataLoader of `dataset`, observed, into `out`."""
    model = AcceleratorModel("planted", round(loop.step_ms * MS), link=loop.link)
    device = EmulatedAccelerator(model, sync=loop.sync, pinned=loop.pinned)
    meta = {
        "accelerator": device.describe(),
        "emulated": ["accelerator: planted"],
        "machine": machine_facts(),
        "storage": loop.storage or None,
    }
    with Session(out, "bench", out.name, meta, warmup_steps=loop.warmup, device=True) as session:
        with Telemetry(session.telemetry):
            loader = session.loader(dataset, **loader_arguments)
            step = 0
            for _ in range(loop.epochs):
                step = _epoch(session, device, loader, loop, step)
            device.synchronize()
            session.device_times(device.finished())
        session.event("run_end")


def _epoch(session: Session, device: EmulatedAccelerator, loader: Any, loop: Loop, step: int) -> int:
    device.request(step)
    for batch in loader:
        device.submit(step, batch)
        session.step_launched(step)
        if loop.main is not None:
            loop.main()
        session.device_times(device.finished())
        step += 1
        if step >= loop.steps:
            break
        device.request(step)
    return step


def scenario(**parts: Any) -> Callable[[Path], None]:
    """A run of the bench."""

    def measured(out: Path) -> None:
        from pipeprof.measure.run import run

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


def said(answer: Answer) -> str:
    """Cause and detail, as the matrix names them."""
    verdict = answer.verdict
    return f"{verdict.cause} ({verdict.detail})" if verdict.detail else verdict.cause
