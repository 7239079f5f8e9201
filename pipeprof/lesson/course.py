"""The course: what is measured for each claim of the lecture, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeprof.lesson.measurements import (
    Measurement,
    NetworkTiming,
    ScenarioRun,
    TwoLayerTraining,
    lesson_directory,
)
from pipeprof.lesson.tuning import Tuning
from pipeprof.scenario import load


@dataclass(frozen=True)
class Shortened:
    """The limits of a scenario under `--quick`."""

    steps: int = 25
    warmup_steps: int = 4
    cells: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of the matrix's cells that are kept, by key."""
    seconds: float | None = None
    """Less time than the file says, for what a busy CPU would make long."""


_SCENARIOS: Final[tuple[tuple[str, Shortened], ...]] = (
    ("1_hdd", Shortened()),
    ("2_ssd", Shortened()),
    ("2_nvme", Shortened()),
    ("3_ram", Shortened()),
    ("3_decoded", Shortened()),
    ("3_cache_fits", Shortened(36, 12)),
    ("3_cache_thrashes", Shortened(36, 12)),
    ("4_workers", Shortened(cells={"loader.workers": (1, 4), "loader.prefetch": (1, 4)})),
    ("4_elsewhere", Shortened(cells={"loader.workers": (1, 4)})),
    ("5_copy_pageable", Shortened(48)),
    ("5_copy_pinned", Shortened(48)),
    ("5_copy_overlapped", Shortened(48)),
    ("5_copy_none", Shortened(48)),
    ("5_ladder", Shortened()),
    ("5_ladder_pinned", Shortened()),
    ("6_cpu", Shortened(24, 2, seconds=20)),
    ("6_accelerators", Shortened()),
    ("6_compile", Shortened(24, 3, seconds=40)),
    ("8_optimizers", Shortened(100, 5)),
    ("9_networks", Shortened(8, 2, {"model.name": ("alexnet", "resnet18")})),
)
"""The scenarios of the course in their order."""


def course(quick: bool, claims: Iterable[int] = (), overrides: Sequence[str] = ()) -> list[Measurement]:
    """List the measurements of `claims` (none named: all) in order; `overrides` change each scenario."""
    wanted = set(claims)
    every: list[Measurement] = [
        run for name, how in _SCENARIOS for run in _runs(name, how if quick else None, overrides)
    ]
    every += [NetworkTiming(quick), TwoLayerTraining(), Tuning(quick)]
    every.sort(key=lambda measurement: claim_of(measurement.name))
    return [entry for entry in every if not wanted or claim_of(entry.name) in wanted]


def claim_of(name: str) -> int:
    """Return the number of the claim that a measurement is about."""
    return int(name.partition("_")[0])


def _runs(name: str, shortened: Shortened | None, overrides: Sequence[str]) -> Iterator[ScenarioRun]:
    file = lesson_directory() / f"{name}.yaml"
    for scenario in load(file, [*_limits(shortened), *overrides]):
        kept = shortened.cells if shortened is not None else {}
        if all(scenario.cell.get(key) in values for key, values in kept.items()):
            yield ScenarioRun(scenario, file)


def _limits(shortened: Shortened | None) -> list[str]:
    if shortened is None:
        return []
    limits = [f"run.steps={shortened.steps}", f"run.warmup_steps={shortened.warmup_steps}"]
    return limits if shortened.seconds is None else [*limits, f"run.seconds={shortened.seconds}"]
