"""Predictions against measurements: the run of one matrix cell predicts all others, which were measured too.

A prediction sees its source's record and the other cell's settings, never what the other cell measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from pipeprof.analyse.analysis import Analysis
from pipeprof.errors import PipeprofError
from pipeprof.record.decode import flat
from pipeprof.record.meta import LoaderMeta
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import change
from pipeprof.simulate.predict import MOST_STEPS, Prediction

_DEFAULTS: Final = {"loader.prefetch": "2"}
"""Values of knobs that a scenario leaves out: torch's own defaults."""
_IMPLIED: Final = ("storage.device", "loader.prefetch", "loader.persistent_workers", "loader.pin_memory")
"""Knobs that another one settles (the tier, no workers) if they are left out."""
DEFAULT: Final = "default"
_NOT_KNOBS: Final = ("name", "about", "expect", "matrix", "cell", "run.seed")


@dataclass(frozen=True, slots=True)
class MatrixPredictions:
    """The predictions of a matrix, one entry a cell in the cells' order."""

    source: int
    """The cell whose run they start from."""
    cells: tuple[Prediction | None, ...]
    """Prediction of each cell; None for the source itself, and for a cell not predictable from it."""
    why_not: tuple[str, ...]
    """Reason for which a cell has no prediction; empty for the others."""


def settings_of(analysis: Analysis) -> dict[str, Any]:
    """Return the settings of a run by dotted key; without a scenario, those of loader and storage."""
    return flat(_resolved(analysis))


def _resolved(analysis: Analysis) -> Mapping[str, Any]:
    meta, named = analysis.run.meta, analysis.verdict.measured.loader
    if meta.scenario.resolved:
        return meta.scenario.resolved
    loader = LoaderMeta(0) if named is None else meta.loader(named.id)
    return {
        "loader": {
            "workers": loader.workers,
            "prefetch": loader.prefetch,
            "batch_size": loader.batch_size,
            "pin_memory": loader.pin_memory,
            "in_order": loader.in_order,
        },
        "storage": {"tier": meta.storage.tier},
    }


def keys_of(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys that are knobs, each once."""
    return list(dict.fromkeys(key for own in settings for key in own if not key.startswith(_NOT_KNOBS)))


def text_of(value: Any) -> str:
    """Return the value of a knob as text."""
    return DEFAULT if value is None else str(value)


def predict_cells(forecasts: Sequence[Forecast], source: str | None = None) -> MatrixPredictions | None:
    """Predict every cell from the one called `source`, or from the middle one that can be predicted from.

    None if no run can be predicted from. Raises `PipeprofError` if no cell is called `source`, or its run
    cannot be predicted from.
    """
    at = _named(forecasts, source) if source is not None else _middle(forecasts)
    if at is None:
        return None
    settings = [settings_of(forecast.analysis) for forecast in forecasts]
    keys = keys_of(settings)
    knobs = [{key: text_of(own.get(key)) for key in keys} for own in settings]
    cells: list[Prediction | None] = []
    why_not = []
    for i, cell in enumerate(forecasts):
        prediction, why = (None, "") if i == at else _predicted(forecasts[at], cell, knobs[at], knobs[i])
        cells.append(prediction)
        why_not.append(why)
    return MatrixPredictions(at, tuple(cells), tuple(why_not))


def _named(forecasts: Sequence[Forecast], source: str) -> int:
    names = [forecast.analysis.run.directory.name for forecast in forecasts]
    if source not in names:
        raise PipeprofError(
            f"no cell of this matrix is called {source}", f"choose one of: {', '.join(names)}"
        )
    at = names.index(source)
    if why := forecasts[at].unpredicted:
        raise PipeprofError(
            f"{source} cannot be predicted from: {' '.join(why.split())}", "choose another cell"
        )
    return at


def _middle(forecasts: Sequence[Forecast]) -> int | None:
    """Return the cell nearest to the middle that can be predicted from; the others are not opened."""
    nearest = sorted(range(len(forecasts)), key=lambda i: (abs(i - len(forecasts) // 2), i))
    return next((i for i in nearest if not forecasts[i].unpredicted), None)


def _predicted(
    source: Forecast, cell: Forecast, own: Mapping[str, str], other: Mapping[str, str]
) -> tuple[Prediction | None, str]:
    try:
        predictor = source.predictor
        demands = predictor.demands
        asked = change(demands.measured, _settings(own, other), demands.step_ns)
        timeline = cell.analysis.timeline
        steps, warmup = len(timeline), int(timeline.warmup.sum())
        if not warmup < steps <= MOST_STEPS:  # the long run says it as well
            return predictor.predict(asked), ""
        return predictor.predict(asked, steps, warmup), ""
    except PipeprofError as error:
        return None, " ".join(str(error).split())


def _settings(own: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the other cell's knobs that differ from the source's; the limits of a run are not knobs."""
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
    """Cell, predicted and measured."""

    label: str
    prediction: Prediction
    measured: float
    """Measured throughput, in samples/s."""
    stall: float | None

    @property
    def error(self) -> float:
        """Return the relative error of the prediction, as a share of what was measured."""
        return self.prediction.throughput.value / self.measured - 1

    @property
    def held(self) -> bool:
        """Return True if the interval of the prediction holds what was measured."""
        return self.prediction.throughput.low <= self.measured <= self.prediction.throughput.high


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of the predictions of a matrix against what was measured."""

    median: float
    largest: float
    worst: Pair
    held: int
    """Number of cells whose interval holds what was measured."""


def errors(pairs: Sequence[Pair]) -> Errors | None:
    """Summarise the pairs' errors, as shares of what was measured; None of none."""
    if not pairs:
        return None
    off = [abs(pair.error) for pair in pairs]
    worst = max(pairs, key=lambda pair: abs(pair.error))
    return Errors(median(off), max(off), worst, sum(pair.held for pair in pairs))
