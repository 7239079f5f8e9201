"""The page as text: what is in it, what must not be, what it says when something is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.job.merge import merge
from pipeprof.errors import PipeprofError
from pipeprof.record.reader import Run
from pipeprof.report import jobs
from pipeprof.report.page import document, html
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.forecast import Forecast
from pipeprof.vocabulary import fixes
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.matrix_pages import written
from tests.report.page.hostile import SCRIPT


class Page(HTMLParser):
    """Elements, scripts and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.visible: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif "style" not in self._inside:
            self.visible.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.visible)).replace("\u00a0", " ")

    @property
    def data(self) -> dict[str, Any]:
        found = next(text for attrs, text in self.scripts if attrs.get("id") == "data")
        return json.loads(found)  # type: ignore[no-any-return]

    @property
    def policy(self) -> str:
        return next(
            str(attrs["content"])
            for tag, attrs in self.elements
            if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        )


@pytest.fixture(scope="session")
def page(stalled_forecast: Forecast) -> Page:
    return Page(html.render(stalled_forecast))


def test_the_first_screen_answers(page: Page, stalled_forecast: Forecast) -> None:
    share = f"{stalled_forecast.verdict.stall_share:.0%}"
    assert page.text.index(share) < page.text.index("Do this first") < page.text.index("Where each step")
    for part in ("emulated storage", "emulated accelerator", "2 workers"):
        assert part in page.text


def test_an_inconclusive_page_concludes_nothing(tmp_path: Path) -> None:
    plan = Plan(batches=15, warmup=5, stages={"read": 200 * MS})
    forecast = Forecast(load(make_run(tmp_path / "run", plan, command=["pipeprof", "run", "s.yaml"])))
    page = Page(html.render(forecast))
    classes = {attrs.get("class") for _, attrs in page.elements}
    assert "big unsure" in classes and not {"big alarm", "big good"} & classes
    assert "no verdict" in page.text and "--set run.steps=" in page.text
    assert "If this holds" in page.text
    for concluding in ("highly input-bound", "Do this first"):
        assert concluding not in page.text


def test_sections_stand_in_their_order(page: Page) -> None:
    ids = [attrs["id"] for tag, attrs in page.elements if tag == "section" and attrs.get("id")]
    assert ids == [
        "verdict",
        "fixes",
        "where",
        "lines",
        "when",
        "waits",
        "workers",
        "storage",
        "whatif",
        "trust",
        "run",
    ]


def test_each_chart_has_a_name_a_description_and_a_table(page: Page) -> None:
    charts = [attrs["data-chart"] for _, attrs in page.elements if attrs.get("data-chart")]
    assert charts
    assert set(charts) == set(page.data["charts"])
    for spec in page.data["charts"].values():
        assert len(spec["description"]) > 20
    assert sum(tag == "table" for tag, _ in page.elements) >= len(charts)


def test_without_scripts_the_page_says_where_the_numbers_are(page: Page) -> None:
    assert any(tag == "noscript" for tag, _ in page.elements) and "numbers as a table" in page.text


def test_nothing_is_loaded_and_the_policy_forbids_it(page: Page) -> None:
    for tag, attrs in page.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert page.policy.startswith("default-src 'none'; ")
    for directive in ("connect-src", "unsafe-eval", "http"):
        assert directive not in page.policy
    assert "'unsafe-inline'" not in re.search(r"script-src [^;]*", page.policy).group()  # type: ignore[union-attr]


def test_the_policy_allows_exactly_the_scripts_of_the_page(page: Page) -> None:
    allowed = set(re.findall(r"'sha256-([^']+)'", page.policy))
    there = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attrs, text in page.scripts
        if attrs.get("type") != "application/json"
    }
    assert allowed == there


ODD = (
    "hostile",
    "hostile_one_batch",
    "bare",
    "failed",
    "torn",
    "one_batch",
    "no_workers",
    "no_device",
    "two_epochs",
    "meta_missing",
)


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_render(odd_forecasts: dict[str, Forecast], name: str) -> None:
    page = Page(html.render(odd_forecasts[name]))
    assert page.text.count("pipeprof report") == 1
    words = re.findall(r"[A-Za-z]+", page.text)
    assert "nan" not in words and "NaN" not in words and "None" not in words and "undefined" not in words


@pytest.mark.parametrize("name", ["hostile", "hostile_one_batch"])
def test_hostile_text_stays_text(odd_forecasts: dict[str, Forecast], name: str) -> None:
    text = html.render(odd_forecasts[name])
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert len(page.scripts) in (3, 4)
    assert "onerror" not in {key for _, attrs in page.elements for key in attrs}
    assert re.sub(r"\s+", " ", SCRIPT) in page.text  # shown, as what it is
    embedded = next(body for attrs, body in page.scripts if attrs.get("id") == "data")
    assert "<" not in embedded and "\u2028" not in embedded
    assert "{{ 7 * 7 }}" in json.dumps(page.data) or name == "hostile_one_batch"


def test_what_is_missing_is_named(odd_forecasts: dict[str, Forecast]) -> None:
    bare = Page(html.render(odd_forecasts["bare"])).text
    assert "No measured step was recorded" in bare
    assert "no step was measured" in bare
    assert "not observed" in bare
    torn = Page(html.render(odd_forecasts["torn"])).text
    assert "partial" in torn
    assert "it broke" in Page(html.render(odd_forecasts["failed"])).text


def test_a_healthy_run_says_so_and_folds_the_rest(healthy_forecast: Forecast) -> None:
    text = html.render(healthy_forecast)
    page = Page(text)
    assert "Nothing here needs your attention" in page.text
    assert "Do this first" not in page.text
    folded = [attrs for tag, attrs in page.elements if tag == "details" and attrs.get("class") == "fold"]
    assert len(folded) >= 4 and not any("open" in attrs for attrs in folded)


def test_a_stalled_run_folds_no_section_but_the_lines(page: Page) -> None:
    tags = [(tag, attrs.get("id") or attrs.get("class")) for tag, attrs in page.elements]
    folds = [place for place, (_, name) in enumerate(tags) if name == "fold"]
    assert [tags[place - 1] for place in folds] == [("section", "lines")]


def test_a_page_is_written_whole_or_not_at_all(
    stalled_forecast: Forecast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")

    def broken(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document, "render", broken)
    with pytest.raises(OSError, match="No space"):
        html.write(stalled_forecast, target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_no_long_table_is_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, table = [], Run.table
    monkeypatch.setattr(Run, "table", lambda run, name: (asked.append(name), table(run, name))[1])
    html.render(Forecast(load(make_run(tmp_path / "run", Plan(batches=150, stages={"decode": 60 * MS})))))
    assert asked and not {"batches", "steps", "stages", "spans"} & set(asked)


def test_json_in_the_page_knows_no_nan() -> None:
    text = document.embed({"a": float("nan"), "b": [float("inf"), 1.5], "c": "</script>&\u2028"})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "</script>&\u2028"}
    assert "<" not in text and "&" not in text


def test_numbers_keep_their_units_on_one_line(page: Page) -> None:
    raw = " ".join(page.visible)
    assert re.search(r"\d\u00a0ms", raw)
    assert not re.search(r"\d %", raw)


@pytest.mark.slow
def test_a_matrix_of_two_knobs_is_one_map_with_a_row_for_each_cell(tmp_path: Path) -> None:
    answers = []
    for tier, read in (("hdd", 60 * MS), ("ssd", 5 * MS)):
        for workers in (0, 2):
            plan = Plan(batches=40, workers=workers, tier=tier, stages={"read": read, "decode": 8 * MS})
            answers.append(Forecast(load(make_run(tmp_path / f"{tier}{workers}", plan))))
    page = Page(written(answers, tmp_path / "matrix.html").read_text())
    assert set(page.data["charts"]) == {"map0", "trust"}
    boxes = page.data["charts"]["map0"]["data"]["values"]
    assert [(box["across"], box["down"]) for box in boxes] == [(0, "hdd"), (2, "hdd"), (0, "ssd"), (2, "ssd")]
    assert sum(box["below"].startswith("pred. ") for box in boxes) >= 2
    assert sum(tag == "tr" for tag, _ in page.elements) == (1 + 4) + (1 + 3)
    assert "tier hdd" in page.text and "tier ssd" in page.text
    assert "In all cells: batch size 32" in page.text
    assert "Tier hdd: " in page.text and "Tier ssd: waiting stays under 5.0% from workers" in page.text
    assert "emulated parts in 4 of 4 runs" in page.text


def test_matrix_page_of_odd_cells_renders(odd_forecasts: dict[str, Forecast], tmp_path: Path) -> None:
    page = Page(written(list(odd_forecasts.values()), tmp_path / "matrix.html").read_text())
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "not observed" in page.text


@pytest.mark.slow
def test_the_charts_are_written_as_pictures(stalled_forecast: Forecast, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    written = [Path(path) for path in html.write_pictures(stalled_forecast, tmp_path / "png")]
    assert {path.stem for path in written} >= {"where", "when", "waits", "storage", "whatif", "fixes"}
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 2_000


def test_pictures_alone_need_vl_convert(
    stalled_forecast: Forecast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert html.write(stalled_forecast, tmp_path / "report.html").exists()
    with pytest.raises(PipeprofError, match=r"pipeprof\[png\]"):
        html.write_pictures(stalled_forecast, tmp_path / "png")
    assert not (tmp_path / "png").exists()


@pytest.mark.slow
def test_the_bundle_of_the_charts_is_the_one_that_its_first_line_names() -> None:
    pytest.importorskip("vl_convert")
    from tests.benchmarks import vega

    kept, made = document._bundle(), vega.bundle()
    if kept.splitlines()[0] != made.splitlines()[0]:
        pytest.skip("this vl-convert bundles other versions")
    assert kept == made


def test_the_longest_wait_is_told_in_a_sentence(tmp_path: Path) -> None:
    slow = [20 * MS] * 60 + [900 * MS] + [20 * MS] * 89
    plan = Plan(batches=150, workers=1, stages={"read": 10 * MS, "decode": slow}, compute=15 * MS)
    page = Page(html.render(Forecast(load(make_run(tmp_path / "run", plan)))))
    assert "Step 60 waited" in page.text
    assert "because worker 0 made its batch in 910 ms, 900 ms of it in decode." in page.text


def test_a_wait_for_workers_to_start_is_not_blamed_on_the_batch(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=60, epochs=2, workers=1, compute=15 * MS)))
    assert found.attribution is not None
    t = found.attribution.timeline
    asked = np.where(np.arange(len(t)) == 60, t.request_ns - 900 * MS, t.request_ns)
    late = replace(found.attribution, timeline=replace(t, request_ns=asked))
    page = Page(html.render(Forecast(replace(found, timeline=late.timeline, attribution=late))))
    assert "Step 60 waited 916 ms: for 900 ms of that, as its epoch began, worker 0 had not" in page.text


def test_waits_lie_in_the_measured_time(tmp_path: Path) -> None:
    """The first start of the workers is outside of it, and so is the part of the first wait that it takes."""
    found = load(make_run(tmp_path / "run", Plan(batches=150, warmup=0, workers=1, compute=15 * MS)))
    assert found.attribution is not None
    t = found.attribution.timeline
    asked = np.where(np.arange(len(t)) == 0, t.request_ns - 900 * MS, t.request_ns)
    early = replace(found.attribution, timeline=replace(t, request_ns=asked))
    assert early.timeline.wait_ns[0] > 900 * MS
    assert early.wait_ns[0] == t.wait_ns[0]
    assert (early.wait_ns[1:] == t.wait_ns[1:]).all()


def test_a_jobs_page_draws_each_rank(tmp_path: Path) -> None:
    job = merge([make_job(tmp_path / "job", Job(read={2: 30 * MS}))])
    page = Page(jobs.write(job, tmp_path / "job.html").read_text())
    boxes = page.data["charts"]["ranks"]["data"]["values"]
    assert {box["view"] for box in boxes} == {f"rank {row.rank}" for row in job.ranks}
    for row in job.ranks:
        ends = [box["end"] for box in boxes if box["view"] == f"rank {row.rank}"]
        assert ends == sorted(ends) and ends[-1] == pytest.approx(1.0, abs=0.02)


def test_a_rank_leads_to_its_own_page_where_there_is_one(tmp_path: Path) -> None:
    job = merge([make_job(tmp_path / "job", Job(read={2: 30 * MS}))])
    own = job.ranks[1].directory / "report.html"
    own.touch()
    links = [
        attrs["href"]
        for name, attrs in Page(jobs.write(job, tmp_path / "job.html").read_text()).elements
        if name == "a" and not (attrs["href"] or "#").startswith("#")
    ]
    assert [tmp_path / str(link) for link in links] == [own]


def test_of_many_ranks_those_are_drawn_that_cost_the_others_most(tmp_path: Path) -> None:
    merged = merge([make_job(tmp_path, Job(ranks=jobs.MOST_ROWS_PAGE + 4, read={2: 30 * MS}))])
    page = Page(jobs.write(merged, tmp_path / "job.html").read_text())
    drawn = json.dumps(page.data["charts"]["ranks"])
    bars = set(re.findall(r'"view": "(rank \d+)"', drawn))
    assert len(bars) == jobs.MOST_ROWS and "rank 2" in bars
    assert f"The {jobs.MOST_ROWS} ranks that cost the others most" in page.text
    assert jobs.EXCHANGE in page.text
    assert "waiting for other ranks" not in page.text  # its own part beside "rank wait 0%"


def test_what_a_warning_says_is_not_assumed_once_more(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, Plan(batches=60, workers=4, tier="hdd", stages={"read": 300 * MS})))
    forecast = Forecast(run)
    shards = next(each for each in forecast.fixes if each.fix.word == fixes.SHARDS.word)
    seen, warning = view_of(run.run, run.verdict), advice.warning_of(forecast, shards)
    assert warning
    assert shards.fix.assumption in advice.card(shards, (), seen)["note"].replace("Assumes: ", "")
    assert "Assumes" not in advice.card(shards, (), seen, warning)["note"]


def test_waits_that_are_all_alike_are_told_and_not_drawn(odd_forecasts: dict[str, Forecast]) -> None:
    text = html.render(odd_forecasts["no_workers"])
    page = Page(text)
    assert "waits" not in page.data["charts"]
    assert "Half waited at most" in page.text and "Held up by order" not in page.text
    assert "Inside the loop" in page.text and "one worker spends" not in page.text
    assert "No step waited." in Page(html.render(odd_forecasts["no_device"])).text


def test_what_stands_between_backticks_is_code_and_stays_text() -> None:
    assert document.prose("then `pipeprof compare`.") == "then <code>pipeprof compare</code>."
    assert document.prose("`<b>` <i>") == "<code>&lt;b&gt;</code> &lt;i&gt;"


def test_no_line_ends_behind_the_hyphens_of_an_option() -> None:
    said = document.command("pipeprof run a-b.yaml --set loader.workers=8 <b>")
    assert said == 'pipeprof run a-b.yaml <span class="whole">--set</span> loader.workers=8 &lt;b&gt;'
