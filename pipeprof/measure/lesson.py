"""The lesson: the claims of CS231n, lecture 8, as a course of rungs that are measured one after the other.

A rung is a scenario of `scenarios/lesson` (one run, or one a cell of its matrix), or one of the two
measurements that are no loader's: the networks' step times (claim 7) and the two-layer net (claim 8). Each
leaves its result below the course's directory as soon as it has one; what lies there is not measured again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

from pipeprof.errors import MeasureError, TraceError
from pipeprof.scenario import Scenario, load
from pipeprof.trace import load as load_run

NETWORKS_JSON: Final = "7_networks.json"
TWO_LAYER_JSON: Final = "8_two_layer.json"


class Rung(Protocol):
    """One thing to measure."""

    @property
    def name(self) -> str:
        """Names its directory or file; begins with the number of its claim."""
        ...

    def done(self, out: Path) -> bool:
        """Whether `out` holds this very measurement, whole."""
        ...

    def measure(self, out: Path, display: Any = None) -> None:
        """Measure it, and leave the result in `out`. Raises a `PipeprofError` where it cannot."""
        ...


@dataclass(frozen=True)
class Quick:
    """How a scenario is shortened for `--quick`."""

    steps: int = 25
    warmup_steps: int = 4
    cells: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Of the matrix only the cells with these values."""
    seconds: float | None = None
    """Less time than the file says, for what a busy CPU would make long."""


_FILES: Final[tuple[tuple[str, Quick], ...]] = (
    ("1_hdd", Quick()),
    ("2_ssd", Quick()),
    ("2_nvme", Quick()),
    ("3_ram", Quick()),
    ("3_decoded", Quick()),
    ("3_cache_fits", Quick(36, 12)),
    ("3_cache_thrashes", Quick(36, 12)),
    ("4_workers", Quick(cells={"loader.workers": (1, 4), "loader.prefetch": (1, 4)})),
    ("4_elsewhere", Quick(cells={"loader.workers": (1, 4)})),
    ("5_copy_pageable", Quick(48)),
    ("5_copy_pinned", Quick(48)),
    ("5_copy_overlapped", Quick(48)),
    ("5_copy_none", Quick(48)),
    ("5_ladder", Quick()),
    ("5_ladder_pinned", Quick()),
    ("6_cpu", Quick(24, 2, seconds=20)),
    ("6_accelerators", Quick()),
    ("6_compile", Quick(24, 3, seconds=40)),
    ("8_optimizers", Quick(100, 5)),
    ("9_networks", Quick(8, 2, {"model.name": ("alexnet", "resnet18")})),
)
"""The scenarios of the course in their order."""


def lesson_directory() -> Path:
    """Where the lesson's scenarios are: in the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("pipeprof")))
    for candidate in (package / "_scenarios" / "lesson", package.parent / "scenarios" / "lesson"):
        if candidate.is_dir():
            return candidate
    raise MeasureError("the lesson's scenarios are not installed", "install pipeprof again")


def course(quick: bool, claims: Iterable[int] = (), overrides: Sequence[str] = ()) -> list[Rung]:
    """The rungs of `claims` (none named: all) in order; `overrides` are `--set`s for each scenario."""
    wanted = set(claims)
    rungs: list[Rung] = [rung for name, how in _FILES for rung in _runs(name, quick, how, overrides)]
    rungs += [Networks(quick), TwoLayer()]
    rungs.sort(key=lambda rung: claim_of(rung.name))
    return [rung for rung in rungs if not wanted or claim_of(rung.name) in wanted]


def claim_of(name: str) -> int:
    """The number of the claim that a rung is about."""
    return int(name.partition("_")[0])


def _runs(name: str, quick: bool, how: Quick, overrides: Sequence[str]) -> Iterator[Rung]:
    file = lesson_directory() / f"{name}.yaml"
    short = [f"run.steps={how.steps}", f"run.warmup_steps={how.warmup_steps}"] if quick else []
    short += [f"run.seconds={how.seconds}"] if quick and how.seconds is not None else []
    for scenario in load(file, [*short, *overrides]):
        if not quick or all(scenario.cell.get(key) in values for key, values in how.cells.items()):
            yield ScenarioRung(scenario, file)


@dataclass(frozen=True)
class ScenarioRung:
    """One run of a scenario, into a run directory of its name."""

    scenario: Scenario
    file: Path

    @property
    def name(self) -> str:
        """The scenario's own, with its cell."""
        return self.scenario.name

    def done(self, out: Path) -> bool:
        """A complete run of this scenario as it is now; keys that it does not have yet had their defaults."""
        try:
            run = load_run(out / self.name)
            told = Scenario.model_validate((run.meta.get("scenario") or {}).get("resolved"))
        except (TraceError, ValueError):
            return False
        return run.status == "complete" and told == self.scenario

    def measure(self, out: Path, display: Any = None) -> None:
        """Run it; what an interrupted attempt left behind is replaced."""
        from pipeprof.measure.run import run

        directory = out / self.name
        if (directory / "run.json").exists():
            shutil.rmtree(directory)
        written = {"path": str(self.file), "text": self.file.read_text(encoding="utf-8")}
        with _one_thread() if self.scenario.accelerator.kind == "emulated" else nullcontext():
            run(self.scenario, directory, written=written, display=display)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Without torch's threads: they make a loop that decodes by itself no faster, and on a busy machine slow.

    Where the accelerator is emulated, torch computes nothing in the main process but the loader's work on
    small tensors. Workers have one thread each in any case.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Networks:
    """Claim 7: forward and backward of the lecture's networks, on the CPU and on CUDA where there is it."""

    quick: bool
    name: str = "7_networks"

    @property
    def batch(self) -> int:
        """Images a batch; the lecture's 16 would take a CPU too long for the quick course."""
        return 2 if self.quick else 16

    def done(self, out: Path) -> bool:
        """Every network has been timed, or has failed."""
        return not self._left(self._held(out))

    def measure(self, out: Path, display: Any = None) -> None:
        """Time what is not timed yet; the result is saved after each network."""
        from pipeprof.measure.networks import SIDE, time_network

        held = self._held(out)
        for network, device, cudnn in self._left(held):
            row: dict[str, Any] = {"network": network, "device": device, "cudnn": cudnn}
            try:
                repeats = 1 if self.quick else 3
                timed = time_network(network, device, cudnn=cudnn, batch=self.batch, repeats=repeats)
                row |= {"step_ns": timed.step_ns, "repeats": timed.repeats}
            except (RuntimeError, MemoryError) as error:
                row |= {"step_ns": None, "why": first_line(error)}
            held["times"].append(row)
            save_json(out / NETWORKS_JSON, {**held, "batch": self.batch, "side": SIDE, **devices()})

    def _held(self, out: Path) -> dict[str, Any]:
        held = read_json(out / NETWORKS_JSON)
        return held if held.get("batch") == self.batch else {"times": []}

    def _left(self, held: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
        from pipeprof.measure.networks import LECTURE_NETWORKS

        places: list[tuple[str, bool | None]] = [("cpu", None)]
        if devices()["cuda"]:
            places += [("cuda", True), ("cuda", False)]
        had = {(row["network"], row["device"], row["cudnn"]) for row in held["times"]}
        wanted = [(network, *place) for network in LECTURE_NETWORKS for place in places]
        return [one for one in wanted if one not in had]


@dataclass(frozen=True)
class TwoLayer:
    """Claim 8: the two-layer net in every way that the lecture writes it, from one start."""

    name: str = "8_two_layer"

    def done(self, out: Path) -> bool:
        """Every way has run, or has failed."""
        return not self._left(self._held(out))

    def measure(self, out: Path, display: Any = None) -> None:
        """Train in each way that has not run yet; the result is saved after each."""
        from pipeprof.measure.two_layer import Problem, run

        held = self._held(out)
        for d_in, way, device in self._left(held):
            problem = Problem(d_in=d_in)
            row: dict[str, Any] = {"d_in": d_in, "way": way, "device": device}
            try:
                told = run(way, problem, device)
                row |= {
                    "losses": told.losses,
                    "first_iteration_ns": told.first_iteration_ns,
                    "iteration_ns": told.iteration_ns,
                }
            except Exception as error:  # torch.compile raises whatever its compiler does
                row |= {"losses": None, "why": first_line(error)}
            held["outcomes"].append(row)
            save_json(out / TWO_LAYER_JSON, {**held, **devices()})

    def _held(self, out: Path) -> dict[str, Any]:
        return read_json(out / TWO_LAYER_JSON) or {"outcomes": []}

    def _left(self, held: dict[str, Any]) -> list[tuple[int, str, str]]:
        from pipeprof.measure.two_layer import NUMPY_WAY, TORCH_WAYS

        places = ["cpu", *(["cuda"] if devices()["cuda"] else [])]
        wanted = []
        for d_in in (1000, 1024):
            wanted.append((d_in, NUMPY_WAY, "cpu"))
            wanted += [(d_in, way, device) for device in places for way in TORCH_WAYS]
        had = {(row["d_in"], row["way"], row["device"]) for row in held["outcomes"]}
        return [one for one in wanted if one not in had]


def devices() -> dict[str, Any]:
    """What there is to compute on: the CPU's threads and the GPU's name, None without one."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
    }


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a JSON file; empty where there is none that can be read."""
    with suppress(OSError, ValueError):
        held = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(held, dict):
            return held
    return {}


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all. Raises `TraceError` where it cannot be written."""
    from pipeprof.trace import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value, indent=1))
    except OSError as error:
        raise TraceError(
            f"cannot write {path}: {error.strerror}", "choose another place with --out"
        ) from error
