"""The one place that assembles: scenario -> run directory.

Everything that can be refused is refused before the directory exists. From then on whatever happens leaves a
run that can be read, with its status.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from pipeprof.measure.bench import Bench
from pipeprof.measure.failure import translated
from pipeprof.measure.live import Progress
from pipeprof.measure.peers import Peers
from pipeprof.measure.ranks import directory_for
from pipeprof.measure.session import Session
from pipeprof.measure.stop import Stopped, stoppable
from pipeprof.measure.telemetry import Telemetry
from pipeprof.measure.training import Loop, loader_part, make_loader
from pipeprof.scenario import Scenario

_SAID_ELSEWHERE: Final = ("pipeprof: ", "This DataLoader will create", ".*pin_memory.*no accelerator")

Display = Callable[[Progress], AbstractContextManager[None]]


def run(
    scenario: Scenario,
    out: Path | None = None,
    *,
    written: dict[str, Any] | None = None,
    display: Display | None = None,
    peers: Peers | None = None,
) -> Path:
    """Measure one scenario. Returns its run directory: `out`, or a new one under `runs/`.

    `written` is the scenario file as `{"path", "text"}`; `display` shows the progress while the block that it
    returns lasts. `peers` run the scenario together with this rank, which writes its own part; the loop waits
    for each step then, since the ranks meet when it has ended.

    Raises a `PipeprofError` before the directory is made for what cannot start, and after it for what failed;
    an interrupted run returns like a complete one and says so in its status. A rank that may not write its
    part runs to the end with the others, and raises then.
    """
    if peers is not None:
        part = scenario.accelerator.model_copy(update={"sync": True})
        scenario = scenario.model_copy(update={"accelerator": part})
    progress = Progress(scenario.name, scenario.run.steps, scenario.run.seconds)
    show = display(progress) if display else nullcontext()
    with _quiet(), Bench(scenario) as bench:
        if peers is not None:
            peers.share(bench.storage)
        told = {"path": None, "text": None, **(written or {}), "resolved": scenario.resolved()}
        session = Session(
            out or directory_for(scenario.name),
            "bench",
            scenario.name,
            {**bench.facts(), "scenario": told},
            warmup_steps=scenario.run.warmup_steps,
            device=True,
        )
        with _recorded(bench, session), show, stoppable() as stop:
            loop = Loop(session, bench.accelerator, progress, scenario.run, stop, peers=peers)
            knobs = loader_part(scenario, bench.accelerator)
            loop.train(make_loader(session, bench.dataset, knobs, scenario.run.seed, peers))
    if session.unwritten is not None:
        session.discard()
        raise session.unwritten
    return session.directory


@contextmanager
def _recorded(bench: Bench, session: Session) -> Iterator[None]:
    """Telemetry beside the block; whatever the block ends with becomes the run's status."""
    telemetry = Telemetry(session.telemetry, rate_hz=bench.scenario.run.telemetry_hz)
    ended: tuple[str, BaseException | None] = ("complete", None)
    try:
        with telemetry:
            yield
    except Stopped:
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
    """`raised` in our words, its frames cleared: who kept it would keep the loader's workers.

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
    bench: Bench, session: Session, telemetry: Telemetry, status: str, error: BaseException | None
) -> None:
    """End the session, with the facts that are known only now. A record that could not be written raises."""
    telemetry.tell(session.writer.meta)
    session.close(status, error=error, storage=bench.storage_facts())
    if session.failure is not None and error is None:
        raise session.failure


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of which the report speaks, or which are the scenario's point."""
    with warnings.catch_warnings():
        for message in _SAID_ELSEWHERE:
            warnings.filterwarnings("ignore", message=message)
        yield
