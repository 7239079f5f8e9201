"""Matrices of forecasts as the verbs lay them out and write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeprof.report.page import html, matrix
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.matrix_predictions import predict_cells


def laid_out(forecasts: Sequence[Forecast], source: str | None = None) -> matrix.Matrix:
    return matrix.matrix([each.analysis for each in forecasts], predict_cells(forecasts, source))


def written(forecasts: Sequence[Forecast], path: Path, source: str | None = None) -> Path:
    return html.write_matrix([each.analysis for each in forecasts], predict_cells(forecasts, source), path)
