"""The lesson's directory as it was read: its runs by name, and the two results that are no runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeprof.analyse import answer as analysis
from pipeprof.errors import PipeprofError, TraceError
from pipeprof.report.facts import Answer, Facts, facts

LESSON_JSON: Final = "lesson.json"


@dataclass(frozen=True)
class Rung:
    """One measured run of the course."""

    name: str
    said: Facts
    answer: Answer

    @property
    def cell(self) -> Mapping[str, Any]:
        """The values of the matrix that this run has, by dotted key."""
        return dict((self.said.meta.get("scenario") or {}).get("resolved", {}).get("cell") or {})

    @property
    def resolved(self) -> Mapping[str, Any]:
        """Its scenario, every key."""
        return dict((self.said.meta.get("scenario") or {}).get("resolved") or {})

    @property
    def stall(self) -> float | None:
        """Share of the time that the accelerator waited for data."""
        return self.said.stall_share

    @property
    def rate(self) -> float | None:
        """Samples a second."""
        return self.said.throughput

    @property
    def bytes_per_sample(self) -> float | None:
        """Mean size of a sample's file."""
        value = (self.said.meta.get("data") or {}).get("mean_bytes")
        return None if value is None else float(value)

    @property
    def full_rate(self) -> float | None:
        """Samples a second if the accelerator never waited: what it does while it computes."""
        if not self.rate or not self.said.utilization:
            return None
        return self.rate / self.said.utilization


@dataclass(frozen=True)
class Course:
    """Everything below one lesson's directory."""

    directory: Path
    told: Mapping[str, Any]
    runs: Mapping[str, Rung]
    networks: Mapping[str, Any] = field(default_factory=dict)
    two_layer: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Runs that are there and say nothing, with the reason."""

    def get(self, name: str) -> Rung | None:
        """The run of that name, None where it is missing."""
        return self.runs.get(name)

    def of(self, prefix: str) -> list[Rung]:
        """The runs of one scenario, its cells in the order of its matrix."""
        return [rung for name, rung in self.runs.items() if name == prefix or name.startswith(f"{prefix}-")]

    def why_missing(self, prefix: str) -> str:
        """Why a scenario has no run."""
        reasons = {**self.unusable, **(self.told.get("errors") or {})}
        for name, text in reasons.items():
            if name == prefix or name.startswith(f"{prefix}-"):
                return " ".join(str(text).split())
        return "it was not run"

    @property
    def quick(self) -> bool:
        """Fewer steps and cells than the whole course."""
        return bool(self.told.get("quick"))

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts of the machine, from any of the runs."""
        return next((rung.said.meta for rung in self.runs.values()), {})


def read(directory: Path) -> Course:
    """Read what is there. Runs that cannot be read, or have no measured step, are left out.

    Raises `TraceError` where there is no lesson.
    """
    told = _json(directory / LESSON_JSON)
    if not told:
        raise TraceError(
            f"{directory} holds no lesson: it has no {LESSON_JSON}", "run `pipeprof lesson --out DIR` first"
        )
    runs, unusable = {}, {}
    for path in sorted(directory.glob("*/run.json"), key=_made_at):
        name = path.parent.name
        try:
            answer = analysis.load(path.parent)
        except PipeprofError as error:
            unusable[name] = str(error)
            continue
        if answer.ledger is None or answer.run.status != "complete":
            done = answer.run.status == "complete"
            unusable[name] = "no step was measured in its time" if done else "it was broken off"
        else:
            runs[name] = Rung(name, facts(answer), answer)
    networks, two_layer, tuning = (
        _json(directory / f"{name}.json") for name in ("7_networks", "8_two_layer", "10_tune")
    )
    return Course(directory, told, runs, networks, two_layer, tuning, unusable)


def _made_at(path: Path) -> tuple[str, str]:
    return (str(_json(path).get("created_at")), path.parent.name)


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}
