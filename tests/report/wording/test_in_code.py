"""The line of the user's program that each advised fix is made at, in every output."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pipeprof
from pipeprof.analyse.why.lines import HotLine
from pipeprof.report.page import html
from pipeprof.report.sharing import Sharing
from pipeprof.report.text import terminal
from pipeprof.report.text.markdown import markdown
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.forecast import Forecast
from pipeprof.vocabulary import fixes
from tests.analyse.test_verdict import GPU
from tests.factory import MS, Plan, loader_meta, make_run

PLAN = Plan(workers=1, stages={"decode": 60 * MS})
SCRIPT = "import data\n\nloader = DataLoader(\n    set_, batch_size=4, num_workers=1,\n)\n"
BEGAN, BEFORE = "2026-01-01T00:00:00+00:00", 1_767_225_600 - 60


def _forecast(directory: Path, **loader: Any) -> Forecast:
    meta = {"machine": GPU, "kind": "trace", "created_at": BEGAN}
    loaders = [loader_meta(PLAN, name="train", **loader)]
    return Forecast(pipeprof.load(make_run(directory / "run", PLAN, loaders=loaders, **meta)))


def _script(directory: Path) -> dict[str, Any]:
    path = directory / "train.py"
    path.write_text(SCRIPT)
    os.utime(path, (BEFORE, BEFORE))
    return {"file": str(path), "line": 3, "column": 9, "in_library": False}


def _shown(forecast: Forecast) -> str:
    paper = io.StringIO()
    terminal.show(forecast, file=paper)
    return paper.getvalue()


@pytest.fixture(scope="module")
def forecast(tmp_path_factory: pytest.TempPathFactory) -> Forecast:
    directory = tmp_path_factory.mktemp("job")
    return _forecast(directory, **_script(directory))


def test_each_output_has_the_call_of_dataloader(forecast: Forecast) -> None:
    first = forecast.advice[0]
    assert first.fix.word == "more-workers" and forecast.place_of(first.fix) == "train.py:3"
    wanted = f"train.py:3: {first.fix.how}"
    assert wanted in _shown(forecast) and wanted in markdown(forecast).replace("\\", "")
    assert forecast.as_dict()["loader"]["line"] == 3
    assert {"train.py:3"} == {
        each["place"] for each in forecast.as_dict()["fixes"] if each["fix"] == "more-workers"
    }


def test_the_page_shows_the_change_of_the_call(forecast: Forecast) -> None:
    page = html.render(forecast)
    assert "<code>train.py:3</code>" in page
    assert "+    set_, batch_size=4, num_workers=" in page
    assert "set_, batch_size" not in html.render(forecast, with_source=False)


def test_a_file_that_has_changed_since_is_not_shown(tmp_path: Path) -> None:
    forecast = _forecast(tmp_path, **_script(tmp_path))
    os.utime(tmp_path / "train.py", (BEFORE + 120, BEFORE + 120))
    page = html.render(forecast)
    assert "<code>train.py:3</code>" in page and "set_, batch_size" not in page


def test_a_loader_that_was_made_before_has_no_place(tmp_path: Path) -> None:
    forecast = _forecast(tmp_path)
    first = forecast.advice[0]
    assert forecast.place_of(first.fix) == "" and forecast.as_dict()["loader"]["file"] is None
    assert "Where: " not in html.render(forecast)


def test_a_librarys_loader_is_not_called_the_users(tmp_path: Path) -> None:
    file = "/opt/env/lib/python3.12/site-packages/lightning/data.py"
    forecast = _forecast(tmp_path, file=file, line=7, in_library=True)
    view = view_of(forecast.analysis.run, forecast.verdict)
    assert advice.in_code(forecast, forecast.advice[0], view) == "lightning/data.py:7 (a library's code)"


def test_a_scenario_has_no_place_in_code(tmp_path: Path) -> None:
    meta = {"machine": GPU, "kind": "bench"}
    loaders = [loader_meta(PLAN, **_script(tmp_path))]
    forecast = Forecast(pipeprof.load(make_run(tmp_path / "run", PLAN, loaders=loaders, **meta)))
    view = view_of(forecast.analysis.run, forecast.verdict)
    assert advice.in_code(forecast, forecast.advice[0], view) == ""


def test_a_shared_run_hides_whose_home_it_was(tmp_path: Path) -> None:
    _forecast(tmp_path, file="/home/xavier/job/train.py", line=3, in_library=False)
    shared = Forecast(pipeprof.analyse.analysis.analyse(Sharing().open(tmp_path / "run")))
    assert "xavier" not in html.render(shared, with_source=False) + _shown(shared)


@pytest.mark.parametrize("epochs", [1, 2])
def test_kept_samples_are_tried_where_there_is_a_second_pass(tmp_path: Path, epochs: int) -> None:
    plan = Plan(workers=1, stages={"read": 2 * MS, "decode": 60 * MS}, epochs=epochs, batches=60)
    meta = {"kind": "trace", "command": ["pipeprof", "trace", "train.py"], "script_words": 1}
    forecast = Forecast(pipeprof.load(make_run(tmp_path / "run", plan, **meta)))
    view = view_of(forecast.analysis.run, forecast.verdict)
    kept = next(each for each in forecast.fixes if each.fix.wraps)
    tried, why = advice.trying(forecast, view, kept), advice.untried(forecast, view, kept)
    assert (tried, "second pass" in why) == (("", True), ("pipeprof trace --try cached train.py", False))[
        epochs - 1
    ]


def test_a_card_says_why_no_command_tries_it(tmp_path: Path) -> None:
    machine = {"cpu_count": 2, "usable_cores": 2, "memory_bytes": 16 << 30, "programs": {"make": 1.5}}
    meta = {"kind": "trace", "command": ["pipeprof", "trace", "train.py"], "script_words": 1}
    plan = Plan(workers=2, stages={"decode": 60 * MS})
    forecast = Forecast(pipeprof.load(make_run(tmp_path / "run", plan, machine=machine, **meta)))
    view = view_of(forecast.analysis.run, forecast.verdict)
    cores = next(each for each in forecast.fixes if each.fix.word == "more-cores")
    stop = replace(cores, fix=replace(cores.fix, word="free-cores"))
    assert advice.untried(forecast, view, cores) == fixes.MORE_CORES.no_trial
    assert advice.untried(forecast, view, stop).endswith("not pipeprof's to stop (most: make).")


class _Loader(pipeprof.ProfiledDataLoader):
    pass


@pytest.mark.parametrize("kind", [pipeprof.ProfiledDataLoader, _Loader])
def test_a_profiled_loader_knows_where_it_was_made(tmp_path: Path, kind: type[Any]) -> None:
    loader = kind(torch.arange(64.0), batch_size=2, out=tmp_path / "run")
    list(loader)
    del loader
    made = pipeprof.load(tmp_path / "run").run.meta.loaders[0]
    source = Path(__file__).read_text().splitlines()
    assert made.file == __file__ and made.line is not None and "kind(torch" in source[made.line - 1]


@pytest.mark.parametrize(("word", "place"), [("keep-open", "train.py:24"), ("gc-freeze", "")])
def test_a_fix_at_the_line_that_costs_most_names_it(tmp_path: Path, word: str, place: str) -> None:
    meta = {"kind": "trace", "command": ["pipeprof", "trace", "train.py"], "script_words": 1}
    forecast = Forecast(pipeprof.load(make_run(tmp_path / "run", Plan(workers=1), **meta)))
    view = view_of(forecast.analysis.run, forecast.verdict)
    own = HotLine("blocked", "train.py", 24, "__getitem__", 0.5, path="/home/me/train.py")
    foreign = replace(own, file="PIL/Image.py", line=3, path="/usr/lib/python3/site-packages/PIL/Image.py")
    assert advice.unpredicted_place(replace(view, fix=word, hot=(foreign, own))) == place
