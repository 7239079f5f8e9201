"""Numbers that once contradicted each other on one page, or on two outputs of one run."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeprof import units
from pipeprof.analyse.analysis import load
from pipeprof.analyse.differences import Figure, Measure, difference
from pipeprof.cli import cli
from pipeprof.measure.bench.run_display import Progress, RecentRates
from pipeprof.report.page import html
from pipeprof.report.text import terminal
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import facts
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.uncertainty import stated
from tests.factory import MS, Plan, make_run
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
    assert "next" not in page.data["charts"]


def test_a_gain_stands_beside_the_measured_rate(stalled_forecast: Forecast) -> None:
    said = facts(stalled_forecast.analysis.run, stalled_forecast.verdict)
    now = said.throughput
    assert now is not None and stalled_forecast.advice
    for one in stalled_forecast.advice:
        assert advice.anchored(one, now).value == pytest.approx(now * (1 + one.gain))
        rate = f"{units.digits(now)} → {units.digits(now * (1 + one.gain))} samples/s"
        assert rate in printed(stalled_forecast)
        assert f"{units.digits(now)} → " in advice.card(one, (), said)["note"]


def test_a_prediction_names_the_measured_rate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Plan(batches=150, stages={"decode": 60 * MS}))
    rate = units.sample_rate(load(run).verdict.measured.throughput_samples_per_s)
    for more in ([], ["--set", "loader.workers=4"]):
        assert f"Measured: {rate}." in CliRunner().invoke(cli, ["predict", str(run), *more]).output


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


TIME = Measure("wait_ns", "mean wait", "time", False)


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
