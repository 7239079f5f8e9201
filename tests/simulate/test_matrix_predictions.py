"""A matrix's page: the cells as the scenario varied them, each beside what one cell's run predicts for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeprof.analyse.analysis import load
from pipeprof.cli import cli
from pipeprof.errors import PipeprofError
from pipeprof.record.decode import encode
from pipeprof.report.page import matrix
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, Plan, make_run
from tests.matrix_pages import laid_out, written
from tests.report.page.test_html import Page

pytestmark = pytest.mark.slow

STAGES = {"decode": 60 * MS, "collate": MS}


def cell(directory: Path, values: dict[str, Any]) -> Forecast:
    """The cell of a matrix that has these values, as `pipeprof run` records it."""
    name = "mine-" + ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
    workers, prefetch = values["loader.workers"], values.get("loader.prefetch")
    resolved = {
        "name": name,
        "data": {"format": values.get("data.format", "jpeg_folder")},
        "storage": {"tier": "ram", "device": None},
        "loader": {"workers": workers, "prefetch": prefetch, "persistent_workers": workers > 0},
        "cell": values,
    }
    plan = Plan(batches=60, workers=workers, prefetch=prefetch or 2, stages=STAGES, tier="ram")
    return Forecast(load(make_run(directory / name, plan, name=name, scenario={"resolved": resolved})))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Forecast]:
    place = tmp_path_factory.mktemp("cells")
    return [
        cell(place, {"loader.workers": workers, "loader.prefetch": prefetch})
        for workers in (1, 2, 3, 4)
        for prefetch in (1, 4)
    ]


def test_the_middle_cell_foretells_the_others(cells: list[Forecast]) -> None:
    found = laid_out(cells)
    assert found.source is not None and found.source.knobs == {"loader.workers": "3", "loader.prefetch": "1"}
    pairs = matrix.pairs(found)
    assert len(pairs) == len(cells) - 1 and not found.missing
    for pair in pairs:  # made by the pipeline's own equations: nothing of it is luck
        assert abs(pair.error) < 0.05, pair.label
        assert pair.prediction.throughput.low < pair.prediction.throughput.value


def test_a_prediction_never_sees_what_its_cell_measured(cells: list[Forecast], tmp_path: Path) -> None:
    plan = Plan(batches=60, workers=4, prefetch=4, tier="ram", stages={"decode": 600 * MS})
    last = cells[-1]
    slow = Forecast(load(make_run(tmp_path / "slow", plan, scenario=encode(last.analysis.run.meta.scenario))))
    honest, other = laid_out(cells).cells[-1], laid_out([*cells[:-1], slow]).cells[-1]
    assert honest.prediction is not None and other.prediction is not None
    assert honest.prediction.throughput == other.prediction.throughput
    assert other.throughput is not None and honest.throughput is not None
    assert other.throughput < honest.throughput / 3


def test_what_a_knob_implies_splits_no_heat_map(tmp_path: Path) -> None:
    found = laid_out([cell(tmp_path, {"loader.workers": workers}) for workers in (0, 1, 2)])
    assert (found.name, found.across, found.down, found.others) == ("mine", "loader.workers", None, ())
    assert len(matrix.heat_maps(found)) == 1
    assert len(matrix.pairs(found)) == 2


@pytest.mark.slow
def test_a_cell_of_other_data_says_why_it_was_not_predicted(tmp_path: Path) -> None:
    formats = ("jpeg_folder", "tensor_files", "tar_shards")
    cells = [cell(tmp_path, {"loader.workers": 2, "data.format": one}) for one in formats]
    found = laid_out([cell(tmp_path, {"loader.workers": 1, "data.format": "tensor_files"}), *cells])
    assert [label for label, _ in found.missing] == [
        "workers 2, format jpeg_folder", "workers 2, format tar_shards",
    ]  # fmt: skip
    page = Page(written(cells, tmp_path / "m.html").read_text())
    assert "not predicted: there is no knob 'data.format'" in page.text


def test_the_page_names_the_source_and_has_a_table_for_the_chart(
    cells: list[Forecast], tmp_path: Path
) -> None:
    name = cells[-1].analysis.run.directory.name
    page = Page(written(cells, tmp_path / "m.html", source=name).read_text())
    assert "outlined in grey: workers 4, prefetch 4." in page.text
    assert "From the run of workers 4, prefetch 4 alone" in page.text and "median error of" in page.text
    assert set(page.data["charts"]) == {"map0", "trust"}
    assert "median error" in page.data["charts"]["trust"]["description"]
    assert sum(tag == "tr" for tag, _ in page.elements) == (1 + len(cells)) + (1 + len(cells) - 1)


def test_a_cell_that_is_not_there_is_one_clear_error(cells: list[Forecast], tmp_path: Path) -> None:
    with pytest.raises(PipeprofError, match="no cell of this matrix is called nine"):
        written(cells, tmp_path / "m.html", source="nine")
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_predicted_from_leave_the_page_whole(
    odd_forecasts: dict[str, Forecast], tmp_path: Path
) -> None:
    page = Page(written([odd_forecasts["bare"], odd_forecasts["failed"]], tmp_path / "m.html").read_text())
    assert "no run of this matrix can be predicted from" in page.text
    assert "trust" not in page.data["charts"]


@pytest.mark.slow
def test_report_rebuilds_the_page_of_a_matrix(cells: list[Forecast]) -> None:
    directory = cells[0].analysis.run.directory.parent
    name = cells[3].analysis.run.directory.name
    done = CliRunner().invoke(cli, ["report", str(directory), "--predict-from", name])
    assert done.exit_code == 0, done.output
    assert f"8 runs. Report of all: {directory / 'report.html'}" in done.output
    assert "From the run of workers 2, prefetch 4" in Page((directory / "report.html").read_text()).text
    wrong = CliRunner().invoke(cli, ["report", str(directory), "--png", "pictures"])
    assert isinstance(wrong.exception, PipeprofError)
    alone = CliRunner().invoke(cli, ["report", str(cells[0].analysis.run.directory), "--predict-from", name])
    assert isinstance(alone.exception, PipeprofError) and "one run" in str(alone.exception)
