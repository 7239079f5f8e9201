"""The lesson's directory as it was read: its runs by name, and the results that are not runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.errors import PipeprofError, TraceError
from pipeprof.lesson.kept import (
    LESSON_JSON,
    NETWORKS_JSON,
    TUNED_JSON,
    TWO_LAYER_JSON,
    LessonMeta,
    NetworkTimes,
    TunedPlaces,
    WaysTrained,
    read_kept,
)
from pipeprof.record.meta import RunMeta, Settings
from pipeprof.report.wording.view import RunView, view_of
from pipeprof.units import NS_PER_S


@dataclass(frozen=True)
class LessonRun:
    """A measured run of the course."""

    name: str
    said: RunView
    analysis: Analysis

    @property
    def cell(self) -> Mapping[str, Any]:
        """Return the values of the matrix that this run has, by dotted key."""
        return self.settings.cell

    @property
    def settings(self) -> Settings:
        """Return the loader and storage of its scenario."""
        return self.said.meta.settings

    @property
    def tier(self) -> str | None:
        """Return the tier that its matrix gave it; None if that is not varied."""
        return self.cell.get("storage.tier")

    @property
    def stall(self) -> float | None:
        """Return the share of the time that the accelerator waited for data."""
        return self.said.stall_share

    @property
    def rate(self) -> float | None:
        """Return the samples per second."""
        return self.said.throughput

    @property
    def bytes_per_sample(self) -> float | None:
        """Return the mean size of a sample's file."""
        return self.said.meta.data.mean_bytes

    @property
    def full_rate(self) -> float | None:
        """Return the samples per second while the accelerator computes, as if it never waited."""
        if not self.rate or not self.said.utilization:
            return None
        return self.rate / self.said.utilization

    @property
    def top_rate(self) -> float | None:
        """Return the samples per second at full speed: by the accelerator's model, else as it computed."""
        device = self.said.meta.accelerator
        if device.step_batch_size and device.step_ns:
            return device.step_batch_size * NS_PER_S / device.step_ns
        return self.full_rate


@dataclass(frozen=True)
class Results:
    """Everything below a lesson's directory."""

    directory: Path
    lesson: LessonMeta
    runs: Mapping[str, LessonRun]
    networks: NetworkTimes = field(default_factory=NetworkTimes)
    two_layer: WaysTrained = field(default_factory=WaysTrained)
    tuning: TunedPlaces = field(default_factory=TunedPlaces)
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Runs that are there and cannot be used, with the reason."""

    def run(self, name: str) -> LessonRun | None:
        """Return the run of that name, None if it is missing."""
        return self.runs.get(name)

    def of(self, prefix: str) -> list[LessonRun]:
        """List the runs of one scenario, its cells in the order of its matrix."""
        return [run for name, run in self.runs.items() if name == prefix or name.startswith(f"{prefix}-")]

    def why_missing(self, prefix: str) -> str:
        """Return why a scenario has no run."""
        reasons = {**self.unusable, **self.lesson.errors}
        for name, text in reasons.items():
            if name == prefix or name.startswith(f"{prefix}-"):
                return " ".join(str(text).split())
        return "it was not run"

    @property
    def quick(self) -> bool:
        """Return True if the course had fewer steps and cells than the whole one."""
        return self.lesson.quick

    @property
    def run_meta(self) -> RunMeta:
        """Record of any of the runs, for the facts of the machine."""
        return next((run.said.meta for run in self.runs.values()), RunMeta())


def read(directory: Path) -> Results:
    """Read a lesson's directory. Runs that cannot be read, or have no measured step, are left out.

    Raises `TraceError` if there is no lesson.
    """
    lesson = read_kept(LessonMeta, directory / LESSON_JSON)
    if lesson is None:
        raise TraceError(
            f"{directory} holds no lesson: it has no {LESSON_JSON}", "run `pipeprof lesson --out DIR` first"
        )
    runs, unusable = {}, {}
    for path in sorted(directory.glob("*/run.json"), key=_made_at):
        name = path.parent.name
        try:
            analysis = load(path.parent)
        except PipeprofError as error:
            unusable[name] = str(error)
            continue
        if analysis.ledger is None or analysis.run.status != "complete":
            done = analysis.run.status == "complete"
            unusable[name] = "no step was measured in its time" if done else "it was broken off"
        else:
            runs[name] = LessonRun(name, view_of(analysis.run, analysis.verdict), analysis)
    return Results(
        directory,
        lesson,
        runs,
        read_kept(NetworkTimes, directory / NETWORKS_JSON) or NetworkTimes(),
        read_kept(WaysTrained, directory / TWO_LAYER_JSON) or WaysTrained(),
        read_kept(TunedPlaces, directory / TUNED_JSON) or TunedPlaces(),
        unusable,
    )


def _made_at(path: Path) -> tuple[str, str]:
    meta = read_kept(RunMeta, path)
    return (str(meta.created_at if meta is not None else None), path.parent.name)
