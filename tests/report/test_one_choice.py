"""One fix, whatever door one comes in through: JSON, page, terminal, `predict`, export and Python."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pipeprof
from pipeprof.cli import cli
from pipeprof.report.page import html
from pipeprof.report.text import forecast as text
from pipeprof.report.text import terminal
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.questions import overview
from pipeprof.vocabulary import fixes
from tests.analyse.test_verdict import CAUSES, GPU, SLOW
from tests.factory import MS, Plan, make_run

S3 = {"tier": None, "name": "s3://bucket/set", "emulated": False, "remote": True}
REFUSED = {"read": 20 * MS, "read:throttled": 300 * MS, "decode": 20 * MS}
TWO_CORES = {"cpu_count": 2, "usable_cores": 2, "memory_bytes": 16 << 30}
RUNS: dict[str, tuple[Plan, dict[str, Any]]] = {
    **{name: (plan, {"machine": GPU}) for name, (plan, _, _) in CAUSES.items()},
    "throttled": (Plan(workers=1, stages=REFUSED, compute=20 * MS, spans_every=0), {"storage": S3}),
    "no core is idle": (Plan(workers=2, stages={"decode": SLOW}), {"machine": TWO_CORES}),
    "no workers": (Plan(workers=0, stages={"decode": 60 * MS}), {"machine": GPU}),
    "ten steps": (Plan(batches=15, warmup=5, stages={"read": SLOW}), {}),
    "no device": (Plan(accelerator="none", batches=40), {}),
}
QUICK = ("hdd", "h2d")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUNS]
)
def test_every_output_names_the_same_fix(tmp_path: Path, name: str) -> None:
    plan, meta = RUNS[name]
    directory = make_run(tmp_path / "run", plan, **meta)
    forecast = Forecast(pipeprof.load(directory))
    fix, first = forecast.verdict.fix, forecast.choice.ranked
    page = html.write(forecast, directory / "report.html").read_text()
    shown = io.StringIO()
    terminal.show(forecast, file=shown)
    view = view_of(forecast.analysis.run, forecast.verdict)
    cards = advice.cards(forecast, view)
    said = " ".join(line[9:] for line in shown.getvalue().splitlines())  # behind the labels
    assert (fixes.BY_WORD[fix].do in said) == (fix != "none")
    assert (forecast.verdict.warning or "") in said
    if fix == "none":
        assert not cards and "Do this first" not in page and "Do this first" not in shown.getvalue()
    elif first is None:
        assert cards[0]["title"] == fixes.BY_WORD[fix].label
        assert "No gain is predicted" in shown.getvalue() and "Do this first" not in shown.getvalue()
    else:
        assert first.fix.word == fix
        assert cards[0]["code"] == advice.how_of(first, view) and cards[0]["gain"] == advice.gain(first)
        below = shown.getvalue().partition("Do this first")[2].splitlines()
        assert first.fix.title[:40] in below[1]
    if not forecast.unpredicted:
        told = overview(forecast, 0.05)
        assert told.as_dict()["advice"] == (None if fix == "none" else fix)
        assert first is None or first.fix.how in "".join(text.overview_text(told))
    assert pipeprof.load(directory).verdict.as_dict() == forecast.verdict.as_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hdd", "no core is idle"])
def test_every_verb_names_the_same_fix(tmp_path: Path, name: str) -> None:
    plan, meta = RUNS[name]
    run = str(make_run(tmp_path / "run", plan, **meta))

    def said(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    fix = json.loads(said("report", run, "--json"))["verdict"]["fix"]
    assert json.loads(said("predict", run, "--json"))["advice"] == fix
    said("report", run)
    said("export", run, "--to", "json", "--out", str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "answer.json").read_text())["verdict"]["fix"] == fix


@pytest.mark.parametrize("door", ["report --json", "report --markdown", "predict --json", "terminal"])
def test_a_fix_that_was_shown_stays_where_no_page_was_written(tmp_path: Path, door: str) -> None:
    plan, meta = RUNS["transfer"]
    directory = make_run(tmp_path / "run", plan, **meta)
    before = pipeprof.load(directory).verdict
    assert (before.fix, before.fix_basis) == ("lighter-transfer", "ledger")
    if door == "terminal":
        terminal.show(Forecast(pipeprof.load(directory)), file=io.StringIO())
    else:
        verb, option = door.split()
        assert CliRunner().invoke(cli, [verb, str(directory), option]).exit_code == 0
    assert not list(directory.glob("*.html"))
    said = pipeprof.load(directory).verdict.as_dict()["verdict"]
    assert (said["fix"], said["fix_basis"]) == ("more-workers", "forecast")
