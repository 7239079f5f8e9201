"""The cells of a matrix, predicted against measured: sentences, chart and table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeprof import units
from pipeprof.report.page import charts
from pipeprof.report.page.section import Row, Table
from pipeprof.report.wording.advice import estimate
from pipeprof.simulate.extrapolation import merged
from pipeprof.simulate.matrix_predictions import Pair, errors


def summary(pairs: Sequence[Pair], source: str) -> str:
    """Return the median and largest error, and how many intervals hold the measurement, in sentences."""
    error = errors(pairs)
    if error is None:
        return f"From {source} no other cell could be predicted."
    outside = [pair for pair in pairs if not _holds(pair)]
    which = ", ".join(f"{pair.label} ({units.signed_percent(pair.error)})" for pair in outside)
    missed = f" The others, with how far the prediction is off: {which}." if outside else ""
    return (
        f"From the run of {source} alone: the throughput of {units.plural(len(pairs), 'other cell')} was "
        f"predicted with a median error of {units.percent(error.median)} and of "
        f"{units.percent(error.largest)} at the most ({error.worst.label}). {error.held} of {len(pairs)} "
        f"intervals hold what was measured; nine in ten should.{missed}{_why(outside)}"
    )


def _holds(pair: Pair) -> bool:
    rate = pair.prediction.throughput
    return rate.low <= pair.measured <= rate.high


def _why(outside: Sequence[Pair]) -> str:
    """Return how the predictions that missed go beyond their run, in a sentence; empty if none does."""
    beyond = merged(text for pair in outside for text in pair.prediction.extrapolations)
    return f" They go beyond that run: {'; '.join(beyond)}." if beyond else ""


def chart(pairs: Sequence[Pair], source: str) -> dict[str, Any]:
    """Draw one point a cell, predicted against measured, with the prediction's interval."""
    rows = [
        {
            "predicted": pair.prediction.throughput.value,
            "low": pair.prediction.throughput.low,
            "high": pair.prediction.throughput.high,
            "measured": pair.measured,
            "label": pair.label,
            "predicted_text": f"{estimate(pair.prediction.throughput)} samples/s",
            "measured_text": units.sample_rate(pair.measured),
        }
        for pair in pairs
    ]
    return charts.trust(rows, summary(pairs, source))


def table(pairs: Sequence[Pair], missing: Sequence[tuple[str, str]]) -> Table:
    """Return a table of the same numbers; `missing` are (cell, why it was not predicted)."""
    rows = [
        Row(
            [
                pair.label,
                units.digits(pair.measured),
                estimate(pair.prediction.throughput),
                units.signed_percent(pair.error),
                units.percent(pair.stall),
                f"{units.percent(pair.prediction.stall.value)} "
                f"({units.interval((pair.prediction.stall.low, pair.prediction.stall.high))})",
            ]
        )
        for pair in pairs
    ]
    rows += [Row([label, *["–"] * 5], how=f"not predicted: {why}") for label, why in missing]
    predicted = "predicted (interval)"
    heads = ["cell", "samples/s, measured", predicted, "off by", "stall, measured", predicted]
    return Table("Predicted beside measured", heads, rows)
