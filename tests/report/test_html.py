"""The page as text: what is in it, what must not be, what it says when something is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeprof.report import document, html
from pipeprof.simulate.answer import Answer, load
from tests.factory import MS, Plan, make_run
from tests.report.hostile import SCRIPT


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
def page(stalled: Answer) -> Page:
    return Page(html.render(stalled))


def test_the_first_screen_answers(page: Page, stalled: Answer) -> None:
    share = f"{stalled.verdict.stall_share:.0%}".replace("%", " %")
    assert page.text.index(share) < page.text.index("Do this first") < page.text.index("Where each step")
    for part in ("storage emulated", "accelerator emulated", "2 workers"):
        assert part in page.text


def test_sections_stand_in_their_order(page: Page) -> None:
    ids = [attrs["id"] for tag, attrs in page.elements if tag == "section" and attrs.get("id")]
    assert ids == [
        "verdict",
        "fixes",
        "where",
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
def test_odd_runs_render(odd: dict[str, Answer], name: str) -> None:
    page = Page(html.render(odd[name]))
    assert page.text.count("pipeprof report") == 1
    words = re.findall(r"[A-Za-z]+", page.text)
    assert "nan" not in words and "NaN" not in words and "None" not in words and "undefined" not in words


@pytest.mark.parametrize("name", ["hostile", "hostile_one_batch"])
def test_hostile_text_stays_text(odd: dict[str, Answer], name: str) -> None:
    text = html.render(odd[name])
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert len(page.scripts) in (3, 4)
    assert "onerror" not in {key for _, attrs in page.elements for key in attrs}
    assert re.sub(r"\s+", " ", SCRIPT) in page.text  # shown, as what it is
    embedded = next(body for attrs, body in page.scripts if attrs.get("id") == "data")
    assert "<" not in embedded and "\u2028" not in embedded
    assert "{{ 7 * 7 }}" in json.dumps(page.data) or name == "hostile_one_batch"


def test_what_is_missing_is_named(odd: dict[str, Answer]) -> None:
    bare = Page(html.render(odd["bare"])).text
    assert "No measured step was recorded" in bare
    assert "no step was measured" in bare
    assert "not observed" in bare
    torn = Page(html.render(odd["torn"])).text
    assert "partial" in torn
    assert "it broke" in Page(html.render(odd["failed"])).text


def test_a_healthy_run_says_so_and_folds_the_rest(healthy: Answer) -> None:
    text = html.render(healthy)
    page = Page(text)
    assert "Nothing here needs your attention" in page.text
    assert "Do this first" not in page.text
    folded = [attrs for tag, attrs in page.elements if tag == "details" and attrs.get("class") == "fold"]
    assert len(folded) >= 4 and not any("open" in attrs for attrs in folded)


def test_a_stalled_run_folds_no_section(page: Page) -> None:
    assert not [attrs for tag, attrs in page.elements if attrs.get("class") == "fold"]


def test_a_page_is_written_whole_or_not_at_all(
    stalled: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")

    def broken(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document, "render", broken)
    with pytest.raises(OSError, match="No space"):
        html.write(stalled, target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_json_in_the_page_knows_no_nan() -> None:
    text = document.embed({"a": float("nan"), "b": [float("inf"), 1.5], "c": "</script>&\u2028"})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "</script>&\u2028"}
    assert "<" not in text and "&" not in text


def test_numbers_keep_their_units_on_one_line(page: Page) -> None:
    raw = " ".join(page.visible)
    assert re.search(r"\d\u00a0ms", raw) and re.search(r"\d\u00a0%", raw)
    assert not re.search(r"\d %", raw)


@pytest.mark.slow
def test_matrix_page_has_a_map_for_each_tier_and_a_row_for_each_cell(tmp_path: Path) -> None:
    answers = []
    for tier, read in (("hdd", 60 * MS), ("ssd", 5 * MS)):
        for workers in (0, 2):
            plan = Plan(batches=40, workers=workers, tier=tier, stages={"read": read, "decode": 8 * MS})
            answers.append(load(make_run(tmp_path / f"{tier}{workers}", plan)))
    page = Page(html.write_matrix(answers, tmp_path / "matrix.html").read_text())
    assert set(page.data["charts"]) == {"map0", "map1", "map0_predicted", "map1_predicted", "trust"}
    assert sum(tag == "tr" for tag, _ in page.elements) == (1 + 4) + (1 + 3)
    assert "tier hdd" in page.text and "tier ssd" in page.text
    assert "emulated parts in 4 of 4 runs" in page.text


def test_matrix_page_of_odd_cells_renders(odd: dict[str, Answer], tmp_path: Path) -> None:
    page = Page(html.write_matrix(list(odd.values()), tmp_path / "matrix.html").read_text())
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "not observed" in page.text


@pytest.mark.slow
def test_the_charts_are_written_as_pictures(stalled: Answer, tmp_path: Path) -> None:
    written = [Path(path) for path in html.write_pictures(stalled, tmp_path / "png")]
    assert {path.stem for path in written} >= {"where", "when", "waits", "storage", "whatif", "fixes"}
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 2_000
