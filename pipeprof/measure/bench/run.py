"""The one place that assembles: scenario -> run directory.

Everything that can be refused is refused before the directory exists. From then on whatever happens leaves a
run that can be read, with its status.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from pipeprof.errors import MeasureError
from pipeprof.measure.bench.bench import Bench
from pipeprof.measure.bench.failure import translated
from pipeprof.measure.bench.rank_group import Peers
from pipeprof.measure.bench.run_display import Progress
from pipeprof.measure.bench.signals import Stopped, stoppable
from pipeprof.measure.bench.training import Loop, loader_part, make_loader
from pipeprof.measure.host.telemetry import Telemetry
from pipeprof.measure.session.job import directory_for
from pipeprof.measure.session.session import Session
from pipeprof.measure.session.steps.kernels import LEAD
from pipeprof.record.meta import ScenarioMeta
from pipeprof.record.schema import Status
from pipeprof.scenario import Scenario

_SAID_ELSEWHERE: Final = ("pipeprof: ", "This DataLoader will create", ".*pin_memory.*no accelerator")

Display = Callable[[Progress], AbstractContextManager[None]]


def run(
    scenario: Scenario,
    out: Path | None = None,
    *,
    written: ScenarioMeta | None = None,
    display: Display | None = None,
    peers: Peers | None = None,
    kernels: int = 0,
) -> Path:
    """Measure one scenario. Returns its run directory: `out`, or a new one under `runs/`.

    `written` is the scenario file, its path and text; `display` shows the progress while the block that it
    returns lasts. `peers` run the scenario together with this rank, which writes its own part; the loop waits
    for each step then, since the ranks meet when it has ended. The kernels of `kernels` steps after warm-up
    are traced by torch.profiler.

    Raises a `PipeprofError` before the directory is made for what cannot start, and after it for what failed;
    an interrupted run returns like a complete one and says so in its status. A rank that may not write its
    part runs to the end with the others, and raises then.
    """
    if peers is not None:
        part = scenario.accelerator.model_copy(update={"sync": True})
        scenario = scenario.model_copy(update={"accelerator": part})
    _leave_steps_to_measure(scenario, kernels)
    progress = Progress(scenario.name, scenario.run.steps, scenario.run.seconds)
    show = display(progress) if display else nullcontext()
    with _quiet(), Bench(scenario) as bench:
        if peers is not None:
            peers.share(bench.storage)
        said = replace(written or ScenarioMeta(), resolved=scenario.resolved())
        session = Session(
            out or directory_for(scenario.name),
            "bench",
            scenario.name,
            replace(bench.facts(), scenario=said),
            warmup_steps=scenario.run.warmup_steps,
            device=True,
            lines=True,
            kernels=kernels,
        )
        with _recorded(bench, session), show, stoppable() as stop:
            loop = Loop(session, bench.accelerator, progress, scenario.run, stop, peers=peers)
            knobs = loader_part(scenario, bench.accelerator)
            loop.train(make_loader(session, bench.dataset, knobs, scenario.run.seed, peers))
    if session.unwritten is not None:
        session.discard()
        raise session.unwritten
    return session.directory


def _leave_steps_to_measure(scenario: Scenario, kernels: int) -> None:
    """Raise `MeasureError` if all steps would be traced: those and the ones before are not measured."""
    limits = scenario.run
    last = max(limits.warmup_steps, LEAD) + kernels
    if kernels and limits.steps is not None and limits.steps <= last:
        raise MeasureError(
            f"--kernels {kernels} traces the steps until the {last}th, and run.steps is {limits.steps}",
            f"set run.steps={last + 20} or more",
        )


@contextmanager
def _recorded(bench: Bench, session: Session) -> Iterator[None]:
    """Read telemetry while the block lasts; whatever the block ends with becomes the run's status."""
    telemetry = Telemetry(session.telemetry, rate_hz=bench.scenario.run.telemetry_hz)
    ended: tuple[Status, BaseException | None] = ("complete", None)
    try:
        with telemetry:
            yield
    except Stopped as stopped:
        session.amend(partial(replace, signal=stopped.name))
        ended = ("interrupted", None)
    except BaseException as raised:
        error = _explained(raised)
        ended = ("failed", error)
        if error is raised:
            raise
        raise error from raised
    finally:
        _close(bench, session, telemetry, *ended)


def _explained(raised: BaseException) -> BaseException:
    """Translate `raised` and clear its frames: keeping them would keep the loader's workers.

    torch's handler of SIGCHLD raises wherever the main thread is: also here, where a lost worker was first
    noticed by its broken connection.
    """
    try:
        error = translated(raised)
        traceback.clear_frames(raised.__traceback__)
    except RuntimeError as later:
        error = translated(later)
        traceback.clear_frames(raised.__traceback__)
    return error


def _close(
    bench: Bench, session: Session, telemetry: Telemetry, status: Status, error: BaseException | None
) -> None:
    """End the session, with the facts that are known only now. A record that could not be written raises."""
    session.amend(telemetry.entered)
    session.close(status, error=error, storage=bench.storage_facts())
    if session.failure is not None and error is None:
        raise session.failure


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings that the report covers, or that are the scenario's point."""
    with warnings.catch_warnings():
        for message in _SAID_ELSEWHERE:
            warnings.filterwarnings("ignore", message=message)
        yield
