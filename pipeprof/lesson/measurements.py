"""The kinds of measurement in the course: a scenario's run, networks' step times, the two-layer net.

Each leaves its result below the course's directory as soon as it has one; an existing result is not measured
again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeprof.errors import TraceError, first_line
from pipeprof.lesson.kept import (
    NETWORKS_JSON,
    TWO_LAYER_JSON,
    NetworkTime,
    NetworkTimes,
    WaysTrained,
    WayTrained,
    read_kept,
    save_kept,
)
from pipeprof.record.meta import ScenarioMeta
from pipeprof.record.reader import load as load_run
from pipeprof.record.schema import RUN_JSON
from pipeprof.scenario import Scenario
from pipeprof.scenario.expectation import misses
from pipeprof.scenario.shipped import shipped_directory

Display = Callable[[Any], AbstractContextManager[None]]
"""Shows a run's progress while the context lasts."""


class Result(NamedTuple):
    """The outcome of a measurement."""

    sentence: str = ""
    """The verdict of a run."""
    missed: tuple[str, ...] = ()
    """The expectations of its scenario that it did not meet."""


class Measurement(Protocol):
    """A part of the course."""

    @property
    def name(self) -> str:
        """Name of its directory or file, which begins with the number of its claim."""
        ...

    def done(self, out: Path) -> bool:
        """Return whether `out` holds this very measurement, whole."""
        ...

    def measure(self, out: Path, display: Display | None = None) -> Result:
        """Measure, and leave the result in `out`. Raises a `PipeprofError` if that cannot be done."""
        ...


def lesson_directory() -> Path:
    """Return where the lesson's scenarios are. Raises `ScenarioError` if they are not installed."""
    return shipped_directory() / "lesson"


@dataclass(frozen=True)
class ScenarioRun:
    """The run of a scenario, in a run directory of its name."""

    scenario: Scenario
    file: Path

    @property
    def name(self) -> str:
        """Return the scenario's own name, with its cell."""
        return self.scenario.name

    def done(self, out: Path) -> bool:
        """Return whether a complete run of this scenario exists; keys that it lacks had their defaults."""
        try:
            run = load_run(out / self.name)
            measured = Scenario.model_validate(run.meta.scenario.resolved)
        except (TraceError, ValueError):
            return False
        return run.status == "complete" and run.meta.scenario.known and measured == self.scenario

    def measure(self, out: Path, display: Display | None = None) -> Result:
        """Run the scenario, in place of an unfinished run. Raises `KeyboardInterrupt` if it is stopped."""
        from pipeprof.analyse.analysis import load as load_analysis
        from pipeprof.measure.bench.run import run

        directory = out / self.name
        if (directory / RUN_JSON).exists():
            shutil.rmtree(directory)
        written = ScenarioMeta(path=str(self.file), text=self.file.read_text(encoding="utf-8"))
        with _one_thread() if self.scenario.accelerator.kind == "emulated" else nullcontext():
            run(self.scenario, directory, written=written, display=display)
        analysis = load_analysis(directory)
        if analysis.run.status == "interrupted":
            raise KeyboardInterrupt
        expect = self.scenario.expect
        missed = misses(expect, analysis.verdict.as_dict()) if expect is not None else []
        return Result(str(analysis.verdict), tuple(missed))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Turn torch's threads off: a loop that decodes by itself gains nothing from them, and may lose time.

    If the accelerator is emulated, torch computes nothing in the main process but the loader's work on small
    tensors. Workers have one thread each in any case.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class NetworkTiming:
    """Claim 7: forward and backward of the lecture's networks, on the CPU and on a GPU if there is one."""

    quick: bool
    name: str = "7_networks"

    @property
    def batch(self) -> int:
        """Return the images of a batch; the lecture's 16 would take a CPU too long for the quick course."""
        return 2 if self.quick else 16

    def done(self, out: Path) -> bool:
        """Return whether every network has been timed, or has failed."""
        return not self._left(self._kept(out))

    def measure(self, out: Path, display: Display | None = None) -> Result:
        """Time what is not timed yet, saving after each network."""
        from pipeprof.lesson.networks import SIDE

        kept = self._kept(out)
        for network, device, cudnn in self._left(kept):
            time = self._time(network, device, cudnn)
            kept = replace(kept, batch=self.batch, side=SIDE, times=(*kept.times, time), **_devices())
            save_kept(out / NETWORKS_JSON, kept)
        return Result()

    def _time(self, network: str, device: str, cudnn: bool | None) -> NetworkTime:
        from pipeprof.lesson.networks import time_network
        from pipeprof.measure.device.here import available_device

        try:
            repeats = 1 if self.quick else 3
            place = None if device == "cpu" else available_device()
            timed = time_network(network, place, cudnn=cudnn, batch=self.batch, repeats=repeats)
        except (RuntimeError, MemoryError) as error:
            return NetworkTime(network, device, cudnn, why=first_line(error))
        return NetworkTime(network, device, cudnn, timed.step_ns, timed.repeats)

    def _kept(self, out: Path) -> NetworkTimes:
        kept = read_kept(NetworkTimes, out / NETWORKS_JSON)
        return kept if kept is not None and kept.batch == self.batch else NetworkTimes()

    def _left(self, kept: NetworkTimes) -> list[tuple[str, str, bool | None]]:
        from pipeprof.lesson.networks import LECTURE_NETWORKS
        from pipeprof.measure.device.here import available_device

        places: list[tuple[str, bool | None]] = [("cpu", None)]
        if (device := available_device()) is not None:
            places += [
                (device.kind, with_it) for with_it in ((True, False) if device.has_library else (None,))
            ]
        had = {(time.network, time.device, time.cudnn) for time in kept.times}
        wanted = [(network, *place) for network in LECTURE_NETWORKS for place in places]
        return [each for each in wanted if each not in had]


@dataclass(frozen=True)
class TwoLayerTraining:
    """Claim 8: the two-layer net in every way that the lecture writes it, from one start."""

    name: str = "8_two_layer"

    def done(self, out: Path) -> bool:
        """Return whether every way has run, or has failed."""
        return not self._left(self._kept(out))

    def measure(self, out: Path, display: Display | None = None) -> Result:
        """Train in each way that has not run yet, saving after each."""
        kept = self._kept(out)
        for d_in, way, device in self._left(kept):
            kept = replace(kept, outcomes=(*kept.outcomes, _train(d_in, way, device)), **_devices())
            save_kept(out / TWO_LAYER_JSON, kept)
        return Result()

    def _kept(self, out: Path) -> WaysTrained:
        return read_kept(WaysTrained, out / TWO_LAYER_JSON) or WaysTrained()

    def _left(self, kept: WaysTrained) -> list[tuple[int, str, str]]:
        from pipeprof.lesson.two_layer import NUMPY_WAY, TORCH_WAYS
        from pipeprof.measure.device.here import available_device

        device = available_device()
        places = ["cpu", *([device.kind] if device is not None else [])]
        wanted = []
        for d_in in (1000, 1024):
            wanted.append((d_in, NUMPY_WAY, "cpu"))
            wanted += [(d_in, way, device) for device in places for way in TORCH_WAYS]
        had = {(outcome.d_in, outcome.way, outcome.device) for outcome in kept.outcomes}
        return [each for each in wanted if each not in had]


def _train(d_in: int, way: str, device: str) -> WayTrained:
    from pipeprof.lesson.two_layer import TwoLayerTask, run
    from pipeprof.measure.device.here import available_device

    place = None if device == "cpu" else available_device()
    try:
        outcome = run(way, TwoLayerTask(d_in=d_in), "cpu" if place is None else place.torch_name)
    except Exception as error:  # torch.compile raises whatever its compiler does
        return WayTrained(d_in, way, device, why=first_line(error))
    return WayTrained(d_in, way, device, outcome.losses, outcome.first_iteration_ns, outcome.iteration_ns)


def _devices() -> dict[str, Any]:
    """Return the hardware to compute on: the CPU's threads and the GPU's name, None without one."""
    import torch

    from pipeprof.measure.device.here import device_name

    return {
        "threads": torch.get_num_threads(),
        "cuda": device_name(),
        "torch": torch.__version__,
    }
