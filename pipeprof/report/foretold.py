"""Predicted beside measured: the run of one cell of a matrix foretells all others, which were measured too.

A prediction sees its source's record and the other cell's settings, never what the other cell measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from pipeprof.errors import PipeprofError
from pipeprof.report import charts, forecast, units
from pipeprof.report.facts import Answer
from pipeprof.report.section import Row, Table
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.knobs import change
from pipeprof.simulate.predict import MOST_STEPS, Prediction, predict

_DEFAULTS: Final = {"loader.prefetch": "2"}
"""What a knob is where a scenario leaves it out: torch's own default."""
_IMPLIED: Final = ("storage.device", "loader.prefetch", "loader.persistent_workers", "loader.pin_memory")
"""Knobs that another one settles (the tier, no workers) where they are left out."""
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Foretold:
    """The predictions of a matrix, one entry a cell in the cells' order."""

    source: int
    """The cell whose run they start from."""
    cells: tuple[Prediction | None, ...]
    """None for the source itself, and for a cell that cannot be predicted from it."""
    why_not: tuple[str, ...]
    """Why a cell has no prediction; empty for the others."""


def foretell(
    answers: Sequence[Answer], knobs: Sequence[Mapping[str, str]], source: str | None = None
) -> Foretold | None:
    """Predict every cell from the one called `source`, or from the middle one that can be predicted from.

    `knobs` are every setting as text, one mapping for each answer. None where no run can be predicted from.
    Raises `PipeprofError` where no cell is called `source`, or its run cannot be predicted from.
    """
    able = [i for i, answer in enumerate(answers) if getattr(answer, "demands", None) is not None]
    at = _named(answers, able, source) if source is not None else _middle(able, len(answers))
    if at is None:
        return None
    demands: Demands = answers[at].demands  # type: ignore[attr-defined]
    cells: list[Prediction | None] = []
    why_not = []
    for i, answer in enumerate(answers):
        found, why = (None, "") if i == at else _predicted(demands, answer, knobs[at], knobs[i])
        cells.append(found)
        why_not.append(why)
    return Foretold(at, tuple(cells), tuple(why_not))


def _named(answers: Sequence[Answer], able: Sequence[int], source: str) -> int:
    names = [answer.run.directory.name for answer in answers]
    if source not in names:
        raise PipeprofError(
            f"no cell of this matrix is called {source}", f"choose one of: {', '.join(names)}"
        )
    at = names.index(source)
    if at not in able:
        why = " ".join(str(getattr(answers[at], "unpredicted", "")).split())
        raise PipeprofError(f"{source} cannot be predicted from: {why}", "choose another cell")
    return at


def _middle(able: Sequence[int], cells: int) -> int | None:
    return min(able, key=lambda i: (abs(i - cells // 2), i), default=None)


def _predicted(
    demands: Demands, answer: Answer, own: Mapping[str, str], other: Mapping[str, str]
) -> tuple[Prediction | None, str]:
    try:
        asked = change(demands.measured, _settings(own, other), demands.step_ns)
        timeline = answer.timeline
        steps, warmup = len(timeline), int(timeline.warmup.sum())
        if not warmup < steps <= MOST_STEPS:  # the long run says it as well
            return predict(demands, asked), ""
        return predict(demands, asked, steps, warmup), ""
    except PipeprofError as error:
        return None, " ".join(str(error).split())


def _settings(own: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """The other cell's knobs where they differ from the source's; the limits of a run are no knobs."""
    asked = {}
    for key, text in other.items():
        if text == own.get(key) or key.startswith("run."):
            continue
        if text == DEFAULT and key not in _DEFAULTS and key in _IMPLIED:
            continue
        asked[key] = _DEFAULTS.get(key, text) if text == DEFAULT else text
    if asked.get("loader.workers") == "0":
        asked.pop("loader.prefetch", None)  # nothing is prefetched without workers
    return asked


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell, predicted and measured."""

    label: str
    prediction: Prediction
    measured: float
    """Samples/s."""
    stall: float | None

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return self.prediction.throughput.value / self.measured - 1

    @property
    def held(self) -> bool:
        """Whether the interval of the prediction holds what was measured."""
        return self.prediction.throughput.low <= self.measured <= self.prediction.throughput.high


def summary(pairs: Sequence[Pair], source: str) -> str:
    """Median and largest error, and how many intervals hold what was measured, in sentences."""
    if not pairs:
        return f"From {source} no other cell could be predicted."
    off = [abs(pair.error) for pair in pairs]
    held = sum(pair.held for pair in pairs)
    worst = max(pairs, key=lambda pair: abs(pair.error))
    return (
        f"From the run of {source} alone: the throughput of {units.plural(len(pairs), 'other cell')} was "
        f"predicted with a median error of {units.percent(median(off))} and of "
        f"{units.percent(max(off))} at the most ({worst.label}). {held} of {len(pairs)} intervals hold what "
        "was measured; nine in ten should."
    )


def chart(pairs: Sequence[Pair], source: str) -> dict[str, Any]:
    """One point a cell, predicted against measured, with the prediction's interval."""
    rows = [
        {
            "predicted": pair.prediction.throughput.value,
            "low": pair.prediction.throughput.low,
            "high": pair.prediction.throughput.high,
            "measured": pair.measured,
            "label": pair.label,
            "predicted_text": f"{forecast.estimate(pair.prediction.throughput)} samples/s",
            "measured_text": units.sample_rate(pair.measured),
        }
        for pair in pairs
    ]
    return charts.trust(rows, summary(pairs, source))


def table(pairs: Sequence[Pair], missing: Sequence[tuple[str, str]]) -> Table:
    """The same numbers; `missing` are (cell, why it was not predicted)."""
    rows = [
        Row(
            [
                pair.label,
                units.digits(pair.measured),
                forecast.estimate(pair.prediction.throughput),
                f"{'+' if pair.error >= 0 else '−'}{units.percent(abs(pair.error))}",
                units.percent(pair.stall),
                f"{units.percent(pair.prediction.stall.value)} "
                f"({units.interval((pair.prediction.stall.low, pair.prediction.stall.high))})",
            ]
        )
        for pair in pairs
    ]
    rows += [Row([label, *["–"] * 5], how=f"not predicted: {why}") for label, why in missing]
    foretold = "predicted (interval)"
    heads = ["cell", "samples/s, measured", foretold, "off by", "stall, measured", foretold]
    return Table("Predicted beside measured", heads, rows)
