"""Numbers that once contradicted each other on one page, or on two outputs of one run."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from pipeprof import units
from pipeprof.analyse import differences
from pipeprof.analyse.analysis import load
from pipeprof.analyse.differences import MEASURES, Compared, Figure, Measure, difference
from pipeprof.analyse.job.merge import merge
from pipeprof.cli import cli
from pipeprof.measure.bench.run_display import Progress, RecentRates
from pipeprof.report import compare, jobs
from pipeprof.report.page import html, matrix, what_if, where
from pipeprof.report.page.section import Chart
from pipeprof.report.text import forecast as forecast_text
from pipeprof.report.text import terminal
from pipeprof.report.text.markdown import markdown
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import view_of
from pipeprof.simulate import questions
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.predict import Estimate
from pipeprof.simulate.uncertainty import stated
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.made_runs import SLOW
from tests.report.page.test_html import Page


def of(directory: Path, plan: Plan, **meta: Any) -> Forecast:
    return Forecast(load(make_run(directory, plan, **meta)))


def printed(forecast: Forecast) -> str:
    file = io.StringIO()
    terminal.show(forecast, file=file)
    return " ".join(file.getvalue().split())


def test_no_accelerator_waits_where_none_was_seen(tmp_path: Path) -> None:
    plan = Plan(batches=150, accelerator="none", stages={"decode": 60 * MS})
    text = printed(of(tmp_path / "run", plan))
    assert "Your training loop spent" in text and "accelerator spent" not in text


def test_what_never_varies_is_a_sentence_and_no_chart(tmp_path: Path) -> None:
    page = Page(html.render(of(tmp_path / "run", Plan(batches=150, workers=1, stages={"decode": 60 * MS}))))
    assert "Was the next batch ready? 0% all along" in page.text
    assert re.search(r"\b0 of 145 steps found the batch ready", page.text)
    assert "next" not in page.data["charts"]


def test_a_gain_stands_beside_the_measured_rate(stalled_forecast: Forecast) -> None:
    said = view_of(stalled_forecast.analysis.run, stalled_forecast.verdict)
    now = said.throughput
    assert now is not None and stalled_forecast.advice
    for one in stalled_forecast.advice:
        assert one.rate.value == pytest.approx(now * (1 + one.gain))
        assert one.rate.low < one.rate.value < one.rate.high
        rate = f"{units.digits(now)} → {advice.estimate(one.rate)} samples/s"
        assert rate in printed(stalled_forecast)
        assert f"{units.digits(now)} → " in advice.card(one, (), said)["note"]


def test_a_prediction_names_the_measured_rate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Plan(batches=150, stages={"decode": 60 * MS}))
    rate = units.sample_rate(load(run).verdict.measured.throughput_samples_per_s)
    for more in ([], ["--set", "loader.workers=4"]):
        assert f"Measured: {rate}, stall " in CliRunner().invoke(cli, ["predict", str(run), *more]).output


def test_why_a_run_is_inconclusive_is_said_once(tmp_path: Path) -> None:
    forecast = of(tmp_path / "run", Plan(batches=15, stages=SLOW))
    for text in (Page(html.render(forecast)).text, printed(forecast), markdown(forecast)):
        assert len(re.findall("only 10 steps", " ".join(text.split()))) == 1


def test_predictions_that_are_all_alike_are_a_sentence_and_no_map(healthy_forecast: Forecast) -> None:
    section = what_if.what_if(healthy_forecast)
    assert "whatif" not in {chart.name for chart in section.charts}
    assert ("Waiting", "0% in all of them") in section.facts


def test_a_run_that_only_computes_is_a_sentence_and_no_chart(healthy_forecast: Forecast) -> None:
    attribution = healthy_forecast.analysis.attribution
    assert attribution is not None
    section = where.when(healthy_forecast.analysis, attribution)
    assert not section.charts and not section.legend
    assert ("The whole run", "100% computing, all along") in section.facts


@pytest.mark.parametrize(
    ("accelerator", "who"), [("emulated", "The emulated accelerator"), ("none", "Your training loop")]
)
def test_a_matrix_says_who_waited_as_its_cells_do(tmp_path: Path, accelerator: str, who: str) -> None:
    plan = Plan(batches=120, accelerator=accelerator, stages={"decode": 60 * MS})
    runs = [load(make_run(tmp_path / str(n), replace(plan, workers=n))) for n in (1, 2)]
    assert matrix.headline(matrix.matrix(runs)).startswith(f"{who} waited between ")
    assert all(run.verdict.statement.headline.startswith(f"{who} spent ") for run in runs)


def test_what_is_enough_holds_for_all_settings_beyond_it(tmp_path: Path) -> None:
    """Few workers did not wait and more did: that is no setting from which on waiting stays low."""
    runs = [
        load(make_run(tmp_path / str(workers), Plan(batches=60, workers=workers, stages={"decode": ns})))
        for workers, ns in ((1, MS), (2, 200 * MS), (4, MS))
    ]
    (said,) = matrix.enough(matrix.matrix(runs))
    assert said == "Waiting stays under 5.0% from workers 4 on."


@pytest.mark.parametrize(("warmup", "said"), [(0, "150 steps in"), (5, "after 5 warm-up steps")])
def test_no_warm_up_is_said_where_there_was_none(tmp_path: Path, warmup: int, said: str) -> None:
    page = Page(html.render(of(tmp_path / "run", Plan(batches=150, warmup=warmup))))
    assert said in page.text and ("warm-up step" in page.text) == bool(warmup)


def test_where_no_step_was_measured_something_is_missing(tmp_path: Path) -> None:
    page = Page(html.render(of(tmp_path / "run", Plan(batches=5, warmup=5), not_observed=[])))
    assert "nothing is missing" not in page.text


def test_computing_and_waiting_are_no_more_than_all_of_the_time() -> None:
    progress, seconds = Progress("x", 200, 60.0), iter([0.0, 2.0])
    window = RecentRates(progress, lambda: next(seconds))
    window.view()
    progress.steps, progress.samples = 50, 400
    progress.busy_ns, progress.wait_ns = 800_000_000, 1_400_000_000
    view = window.view()
    assert view.busy == pytest.approx(0.4) and view.stall == pytest.approx(0.6)


def test_a_healthy_run_has_nothing_to_do_in_any_output(healthy_forecast: Forecast) -> None:
    page = Page(html.render(healthy_forecast))
    for text in (page.text, printed(healthy_forecast)):
        assert "Do this first" not in text


def test_cards_behind_the_first_are_ranked_by_gain(stalled_forecast: Forecast) -> None:
    gains = [one.gain for one in stalled_forecast.advice[1:]]
    assert gains == sorted(gains, reverse=True)


def test_percent_signs_are_written_in_one_way(stalled_forecast: Forecast) -> None:
    assert not re.search(r"\d %", printed(stalled_forecast))


TIME = Measure("wait_ns", "mean wait in next()", "time", False)


@pytest.mark.parametrize("other", [Figure(0.0, -2e6, 2e6), Figure(1e6, -9e6, 11e6)])
def test_no_time_falls_by_more_than_all_of_it(other: Figure) -> None:
    base = Figure(10e6, 9e6, 11e6)
    found = difference(TIME, base, other)
    assert found.low is not None and found.low >= -10e6


def test_one_run_knows_one_share_of_the_other_programs(stalled_forecast: Forecast) -> None:
    demands = stalled_forecast.predictor.demands
    beside = replace(demands.measured, neighbours=2.0)
    said = {
        str(each)
        for cores in (1.0, 4.0, 16.0)
        for each in stated(replace(demands, measured=beside), replace(beside, cores=cores))
        if "other programs" in str(each)
    }
    assert len(said) == 1


def test_a_run_that_cannot_tell_concludes_nothing(tmp_path: Path) -> None:
    forecast = of(tmp_path / "run", Plan(batches=15, stages=SLOW))
    page = Page(html.render(forecast))
    for text in (page.text, printed(forecast), markdown(forecast)):
        assert "input-bound" not in text and "Do this first" not in text
        assert not re.search(r"\d → \d", text)
    assert ("p", "big unsure") in {(tag, dict(said).get("class")) for tag, said in page.elements}


def test_a_loop_of_milliseconds_concludes_nothing(tmp_path: Path) -> None:
    forecast = of(tmp_path / "run", Plan(batches=80, accelerator="none", compute=0, stages={"decode": MS}))
    assert forecast.verdict.cause == "inconclusive" and not forecast.advice


def test_a_replay_that_waits_for_longer_than_the_run_is_a_rough_one() -> None:
    known = {"replay_error": 0.02, "replay": SimpleNamespace(stall=Estimate(0.9, 0.8, 1.0))}
    forecast: Any = SimpleNamespace(
        analysis=SimpleNamespace(verdict=SimpleNamespace(stall_share=0.45)), **known
    )
    assert advice.replay_warning(forecast).endswith("this run waits 90% of the time and not 45%")
    forecast.analysis.verdict.stall_share = 0.85
    assert advice.replay_warning(forecast) == ""


@pytest.mark.parametrize(("another", "said"), [(0.16, False), (1.06, True)])
def test_a_fix_above_one_that_gains_more_says_why(another: float, said: bool) -> None:
    first = SimpleNamespace(gain=0.16)
    forecast: Any = SimpleNamespace(
        choice=SimpleNamespace(ranked=first), advice=[first, SimpleNamespace(gain=another)]
    )
    assert ("another is predicted to gain more" in advice.why_first(forecast)) == said


def test_one_fix_has_one_rate_in_every_output(stalled_forecast: Forecast) -> None:
    now = stalled_forecast.verdict.measured.throughput_samples_per_s
    overview = questions.overview(stalled_forecast, 0.05)
    told = " ".join(" ".join(forecast_text.overview_text(overview)).split())
    section = what_if.what_if(stalled_forecast)
    table = {row.cells[0]: row.cells[2] for chart in section.charts[1:] for row in chart.table.rows}  # type: ignore[union-attr]
    for one in stalled_forecast.fixes:
        rate = advice.estimate(one.rate)
        assert table[one.fix.title] == rate and rate in told
    boxes = values_of(section.charts[0])
    (here,) = [box for box in boxes if box["outline"] == "this run"]
    assert f", {units.digits(now)} samples/s" in here["note"]
    assert f"now {units.digits(now)}" in told


def values_of(chart: Chart) -> list[dict[str, Any]]:
    """Return the rows of a chart's data."""
    sets = chart.spec["datasets"] if "datasets" in chart.spec else {"": chart.spec["data"]["values"]}
    return [row for rows in sets.values() for row in rows]


def test_each_owner_has_one_time_a_step(stalled_forecast: Forecast) -> None:
    said = view_of(stalled_forecast.analysis.run, stalled_forecast.verdict)
    boxes = values_of(where.where(said).charts[0])
    decode = next(row for row in said.owned if row.owner == "decode")
    day, path = (
        next(box["text"] for box in boxes if box["label"] == "decode" and box["view"] == view)
        for view in (where.DAY, where.PATH)
    )
    assert day == units.duration(decode.step_ns) and path.endswith("%")
    assert f"decode {day} {units.percent(decode.ledger_share)} {path}" in printed(stalled_forecast)


def test_cells_of_two_matrices_with_the_same_words_are_told_apart(tmp_path: Path) -> None:
    for batch, device in ((16, "hdd-7200"), (32, "hdd-5400")):
        plan = Plan(batches=30, batch_size=batch, tier="hdd", stages={"read": 60 * MS})
        storage = {"tier": "hdd", "name": device, "emulated": True}
        runs = [
            load(make_run(tmp_path / f"{batch}-{workers}", replace(plan, workers=workers), storage=storage))
            for workers in (1, 2)
        ]
        (said,) = matrix.in_all(matrix.matrix(runs))
        assert f"batch size {batch}" in said and f"hdd is {device}" in said


def compared(rate: float, stall: float, computing: float, unfair: tuple[str, ...] = ()) -> Compared:
    """Return a comparison of a run with 10 samples/s that waited half of the time and computed for 20 ms."""
    pairs = ((10.0, rate), (0.5, stall), (0.5, 0.5), (100e6, 1e9 / rate))
    differences = tuple(
        difference(measure, Figure(old, old * 0.99, old * 1.01), Figure(new, new * 0.99, new * 1.01))
        for measure, (old, new) in zip(MEASURES, pairs, strict=False)
    )
    work = Measure("accelerator", "computing", "time", None)
    own = (difference(work, Figure(20e6, 19e6, 21e6), Figure(computing, computing, computing * 1.01)),)
    return Compared("a", "b", differences, own, (), (), unfair, ())


def test_slower_and_yet_waiting_less_is_explained() -> None:
    (first, *_) = compare.lines([compared(6.0, 0.3, 52e6)])
    said = compare.headline(compared(6.0, 0.3, 52e6))
    assert said.endswith("although it waited less: computing 20.0 ms → 52.0 ms each step.")
    assert first.plain.startswith("40% slower (95% CI ")
    assert "although" not in compare.headline(compared(6.0, 0.7, 52e6))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_comparison_is_cut_at_no_width(width: int) -> None:
    work = Measure("stage:a", "a stage with a name that is far longer than it need be" * 2, "time", None)
    slower = difference(work, Figure(90e6, 89e6, 91e6), Figure(20e6, 19e6, 21e6))
    made = replace(compared(10.01, 0.5, 20.1e6, ("a " * 60,)), owners=(slower,))
    said = [line.plain for line in compare.lines([made], width)]
    assert all(len(line) <= width for line in said) and "…" not in "".join(said)


def test_a_comparison_names_the_utilisation_as_the_reports_do(tmp_path: Path) -> None:
    plan = Plan(batches=60, accelerator="none", stages=SLOW)
    runs = [load(make_run(tmp_path / name, plan)) for name in ("a", "b")]
    (said,) = differences.compare(runs)
    assert said.utilization_kind == "loop-body"
    assert "loop busy" in "\n".join(line.plain for line in compare.lines([said]))
    assert "| loop busy |" in compare.markdown([said])


def test_an_unfair_comparison_says_so_in_its_first_line() -> None:
    (first, *_) = compare.lines([compared(6.0, 0.3, 52e6, ("another program ran",))])
    assert first.plain.endswith("but not a fair comparison.")


def test_what_the_ranks_lost_has_the_headlines_share_as_a_part(tmp_path: Path) -> None:
    job = merge([make_job(tmp_path / "job", Job(read=dict.fromkeys(range(4), 60 * MS)))])
    text = " ".join(jobs.lines(job))
    headline = re.search(r"all of them spent (\S+) of the time", text)
    assert headline is not None and f": {headline[1]} to waiting for data, " in " ".join(text.split())
