"""A forecast: made when asked for, once for each question; a run that cannot be predicted from has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pipeprof
from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.cli import cli
from pipeprof.devices import STORAGE
from pipeprof.errors import InconclusiveError
from pipeprof.report.page import html
from pipeprof.simulate import forecast as forecasts
from pipeprof.simulate.clock import VirtualClock
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, Plan, make_run
from tests.simulate.common import CPU_ONLY, HDD, hdd_plan, recorded


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the runs in virtual time that were played since the fixture was set up."""
    played: list[VirtualClock] = []
    run = VirtualClock.run

    def counted(clock: VirtualClock) -> None:
        played.append(clock)
        run(clock)

    monkeypatch.setattr(VirtualClock, "run", counted)
    return lambda: len(played)


def test_a_run_without_a_read_is_predicted_from_and_reported(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Plan(batches=60, stages=CPU_ONLY), STORAGE["sata-ssd"])
    found = Forecast(analyse(run))
    assert found.unpredicted == "" and found.replay is not None
    assert found.best_of_loaders is not None
    assert html.write(found, tmp_path / "report.html").stat().st_size > 100_000


def test_a_run_that_cannot_be_opened_for_questions_is_analysed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise InconclusiveError("it cannot say")

    run = recorded(tmp_path / "run", Plan(batches=60, workers=1, stages={"decode": 90 * MS}))
    monkeypatch.setattr(forecasts, "open_run", refuses)
    found = Forecast(analyse(run))
    assert found.unpredicted == "it cannot say"
    assert (found.base, found.replay, found.heat_map, found.fixes, found.advice) == (None, None, None, (), [])
    assert (found.verdict.cause, found.verdict.fix) == ("decode", "more-workers")
    assert "it cannot say" in html.render(found)


@pytest.mark.parametrize("part", ["rank", "headroom"])
def test_a_question_without_an_answer_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise InconclusiveError("it cannot say")

    monkeypatch.setattr(forecasts.ranking, part, refuses)
    found = Forecast(analyse(recorded(tmp_path / "run", Plan(batches=60, stages=CPU_ONLY))))
    assert found.base is not None and found.unpredicted == ""
    assert html.render(found)


def test_what_there_is_no_time_for_says_so_and_the_fix_is_chosen_all_the_same(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Plan(batches=60, workers=1, stages={"decode": 90 * MS}))
    whole = Forecast(analyse(run))
    assert whole.fixes and whole.heat_map is not None and whole.unfinished == ""
    hurried = Forecast(analyse(run), limit_s=5.0, clock_s=iter(range(0, 10_000, 10)).__next__)
    page = html.render(hurried)
    assert (hurried.choice.word, hurried.verdict.fix) == (whole.choice.word, whole.verdict.fix)
    assert hurried.heat_map is None and 0 < len(hurried.fixes) < len(whole.fixes)
    assert "pipeprof predict" in hurried.unfinished and "of CPU were not enough for all fixes" in page
    assert hurried.as_dict()["not_predicted"] == hurried.unfinished


def test_the_interval_of_a_prediction_is_played_when_it_is_asked_for(
    tmp_path: Path, simulations: Callable[[], int]
) -> None:
    predictor = Forecast(analyse(recorded(tmp_path / "run", Plan(batches=60, stages=CPU_ONLY)))).predictor
    base = predictor.base()
    assert base.rate > 0 and simulations() == 1
    assert base.throughput.low < base.rate == base.throughput.value < base.throughput.high
    assert base.stall.value == base.idle and simulations() == 4


def test_reading_a_run_simulates_nothing(tmp_path: Path, simulations: Callable[[], int]) -> None:
    directory = make_run(tmp_path / "run", hdd_plan(batches=60))
    analysis = pipeprof.load(directory)
    forecast = Forecast(analysis)
    assert analysis.verdict.as_dict()["verdict"]["fix"]
    assert forecast.analysis is analysis and simulations() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "export RUN --to csv --out OUT",
        "export RUN --to json --out OUT",
        "export RUN --to perfetto --out OUT",
        "export RUN --to tensorboard --out OUT",
        "check RUN --max-stall 5%",
        "check RUN --baseline RUN --max-regression 5%",
        "compare RUN RUN",
        "compare RUN RUN --html OUT",
        "list ROOT",
        "open RUN",
    ],
)
def test_verbs_that_show_no_prediction_make_none(
    tmp_path: Path, arguments: str, simulations: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", hdd_plan(batches=60))
    (run / "report.html").write_text("made before")
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    words = {"RUN": str(run), "OUT": str(tmp_path / "out"), "ROOT": str(tmp_path)}
    done = CliRunner().invoke(cli, [words.get(one, one) for one in arguments.split()])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert done.exit_code in (0, 1), done.output
    assert simulations() == 0


def test_equal_questions_are_simulated_once(tmp_path: Path, simulations: Callable[[], int]) -> None:
    found = Forecast(analyse(recorded(tmp_path / "run", hdd_plan(batches=60), HDD)))
    page = html.render(found)
    once = simulations()
    assert once > 0
    assert html.render(found) == page
    predictor = found.predictor
    assert predictor.base() is found.base
    for fix in found.fixes:
        assert predictor.predict(fix.fix.knobs) is fix.prediction
    assert simulations() == once


def test_the_maps_own_cell_and_its_fixes_are_those_of_the_page(tmp_path: Path) -> None:
    found = Forecast(analyse(recorded(tmp_path / "run", hdd_plan(batches=60), HDD)))
    cells = found.heat_map
    assert cells is not None
    places = {
        (workers, prefetch): cells.cells[row][column]
        for row, workers in enumerate(cells.workers)
        for column, prefetch in enumerate(cells.prefetch)
    }
    assert places[cells.current] is found.base
    more = next(one for one in found.fixes if one.fix.word == "more-workers")
    assert places[(more.fix.knobs.workers, more.fix.knobs.prefetch)] is more.prediction


def test_a_choice_needs_only_what_bears_on_the_cause(tmp_path: Path, simulations: Callable[[], int]) -> None:
    healthy = Forecast(analyse(recorded(tmp_path / "healthy", Plan(workers=4, batches=60))))
    assert healthy.choice.word == "none" and simulations() == 0
    loop = Plan(batches=60, stages={"decode": MS}, main=60 * MS)
    found = Forecast(analyse(recorded(tmp_path / "loop", loop)))
    assert found.choice.word == "loop"
    chosen = simulations()
    assert len(found.fixes) > 5 and simulations() > 3 * chosen


def test_what_was_chosen_by_prediction_is_what_later_readers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prediction that knows better than the ledger: the page, then JSON without a prediction."""
    directory = recorded(tmp_path / "run", hdd_plan(batches=60), HDD).directory
    before = pipeprof.load(directory)
    assert before.verdict.fix == "ram"
    found = Forecast(before)
    monkeypatch.setattr(forecasts.ranking, "choose", lambda *_: forecasts.Choice("shards"))
    html.write(found, tmp_path / "elsewhere.html")
    after = pipeprof.load(directory)
    assert (found.verdict.fix, after.verdict.fix) == ("shards", "shards")
    assert after.verdict.as_dict() == found.verdict.as_dict()
    _of_another_cause(directory, tmp_path / "other")


def _of_another_cause(directory: Path, other: Path) -> None:
    """A choice that was made for another cause says nothing."""
    make_run(other, Plan(stages={"decode": MS}, main=60 * MS))
    (other / "choice.json").write_text((directory / "choice.json").read_text())
    assert pipeprof.load(other).verdict.fix == "loop"


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "cause": 1}', "\x00"])
def test_a_damaged_choice_is_none(tmp_path: Path, text: str) -> None:
    directory = make_run(tmp_path / "run", Plan(stages={"decode": MS}, main=60 * MS))
    (directory / "choice.json").write_text(text)
    assert pipeprof.load(directory).verdict.fix == "loop"


def test_a_directory_that_cannot_be_written_keeps_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Forecast(analyse(recorded(tmp_path / "run", hdd_plan(batches=60), HDD)))
    monkeypatch.setattr(forecasts.ranking, "choose", lambda *_: forecasts.Choice("shards"))

    def refuses(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pipeprof.record.choice.write_record", refuses)
    found.publish()
    assert not (tmp_path / "run" / "choice.json").exists()


def test_a_forecast_holds_an_analysis_and_is_none(stalled: Analysis) -> None:
    assert not issubclass(Forecast, Analysis)
    assert Forecast(stalled).analysis is stalled
