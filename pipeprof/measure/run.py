"""The one place that assembles: scenario -> run directory.

Everything that can be refused is refused before the directory exists: storage, data set, accelerator, model.
From then on whatever happens leaves a run that can be read, with its status.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from torch.utils.data import Dataset

from pipeprof.measure.accelerator import Accelerator, make_accelerator
from pipeprof.measure.data import describe_data, open_dataset
from pipeprof.measure.failure import lost_worker, translated
from pipeprof.measure.live import Progress
from pipeprof.measure.machine import machine_facts, package_versions
from pipeprof.measure.session import Session
from pipeprof.measure.stop import Stopped, stoppable
from pipeprof.measure.storage import Storage, make_storage
from pipeprof.measure.telemetry import Telemetry
from pipeprof.measure.training import Loop, make_loader
from pipeprof.scenario import Scenario

RUNS: Final = Path("runs")
_SAID_ELSEWHERE: Final = (
    "pipeprof: ",
    "This DataLoader will create",
    ".*pin_memory.*no accelerator is found",
)

Display = Callable[[Progress], AbstractContextManager[None]]


@dataclass(frozen=True)
class Bench:
    """What a scenario names, made: nothing of it has run yet."""

    scenario: Scenario
    storage: Storage
    dataset: Dataset[Any]
    data: dict[str, Any]
    accelerator: Accelerator


def prepare(scenario: Scenario) -> Bench:
    """Make what the scenario names. Raises a `PipeprofError` for whatever cannot be had here."""
    accelerator = make_accelerator(scenario)
    storage = make_storage(scenario)
    dataset = open_dataset(scenario, storage)
    return Bench(scenario, storage, dataset, describe_data(scenario), accelerator)


def run(
    scenario: Scenario,
    out: Path | None = None,
    *,
    written: dict[str, Any] | None = None,
    display: Display | None = None,
) -> Path:
    """Measure one scenario. Returns its run directory: `out`, or a new one under `runs/`.

    `written` is the scenario file as `{"path", "text"}`; `display` shows the progress while the block that it
    returns lasts. Raises a `PipeprofError` before the directory is made for what cannot start, and after it
    for what failed; an interrupted run returns like a complete one and says so in its status.
    """
    bench = prepare(scenario)
    directory = out or new_directory(scenario.name)
    progress = Progress(scenario.name, scenario.run.steps, scenario.run.seconds)
    session = Session(
        directory,
        "bench",
        scenario.name,
        _meta(bench, written or {}),
        warmup_steps=scenario.run.warmup_steps,
        device=True,
    )
    with _recorded(bench, session), display(progress) if display else nullcontext(), stoppable():
        loader = make_loader(session, bench.dataset, scenario.loader, scenario.run.seed)
        Loop(session, bench.accelerator, progress, scenario.run).train(loader)
    return directory


def new_directory(name: str, parent: Path = RUNS) -> Path:
    """`runs/<name>-<time>`, with a number behind it where two runs start in one second. Not made yet."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (f"{stem}-{number}" if number > 1 else stem for number in range(1, 1000))
    return next(parent / each for each in candidates if not (parent / each).exists())


@contextmanager
def _recorded(bench: Bench, session: Session) -> Iterator[None]:
    """Telemetry beside the block; whatever the block ends with becomes the run's status."""
    telemetry = Telemetry(session.telemetry)
    ended: tuple[str, BaseException | None] = ("complete", None)
    try:
        with telemetry, _quiet():
            yield
    except Stopped:
        ended = ("interrupted", None)
    except BaseException as raised:
        error = translated(raised)
        ended = ("failed", error)
        if (lost := lost_worker(raised)) is not None:
            session.event("worker_lost", detail=lost)
        if error is raised:
            raise
        raise error from raised
    finally:
        _close(bench, session, telemetry, ended)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of which the report speaks, or which are the scenario's point."""
    with warnings.catch_warnings():
        for message in _SAID_ELSEWHERE:
            warnings.filterwarnings("ignore", message=message)
        yield


def _close(
    bench: Bench, session: Session, telemetry: Telemetry, ended: tuple[str, BaseException | None]
) -> None:
    """End the session, with the facts that are known only now. A record that could not be written raises."""
    status, error = ended
    not_observed = [f"{name}: {why}" for name, why in telemetry.not_observed.items()]
    session.close(
        status,
        error=error,
        telemetry=telemetry.describe(),
        storage={**session.writer.meta["storage"], **bench.storage.describe()},
        not_observed=[*session.writer.meta["not_observed"], *not_observed],
    )
    if session.failure is not None and error is None:
        raise session.failure


def _meta(bench: Bench, written: dict[str, Any]) -> dict[str, Any]:
    """The run's facts that are known before it starts."""
    scenario = bench.scenario
    accelerator, storage = bench.accelerator.describe(), bench.storage.describe()
    return {
        "scenario": {"path": None, "text": None, **written, "resolved": scenario.resolved()},
        "accelerator": accelerator,
        "storage": {**storage, "cache": scenario.storage.cache},
        "data": bench.data,
        "model": accelerator.pop("model", None),
        "machine": machine_facts(),
        "packages": package_versions(),
        "seeds": {"run": scenario.run.seed, "data": scenario.data.seed},
        "emulated": _emulated(scenario, accelerator, storage),
        "warmup_steps": scenario.run.warmup_steps,
    }


def _emulated(scenario: Scenario, accelerator: dict[str, Any], storage: dict[str, Any]) -> list[str]:
    """What of the run is emulated, in words that may stand beside its numbers."""
    found = []
    if storage["emulated"]:
        found.append(f"storage: {storage['name']}")
    if accelerator["emulated"]:
        found.append(f"accelerator: {accelerator['name']}")
        found.append(f"host-to-device link: {accelerator['link']['name']}")
    return found
