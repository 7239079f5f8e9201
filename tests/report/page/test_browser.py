"""The pages in a real browser: a headless Chromium of the system, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.differences import compare as differences
from pipeprof.analyse.job.merge import merge
from pipeprof.lesson import page as lesson
from pipeprof.report import compare
from pipeprof.report import jobs as ranks
from pipeprof.report.page import html
from pipeprof.simulate.forecast import Forecast
from tests.analyse.jobs import Job, make_job
from tests.factory import MS
from tests.lesson.made import add_results, make_lesson
from tests.matrix_pages import written

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


class Opened:
    """A page in the browser, with everything that it said and asked for."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def opened(browser: Any, path: Path, width: int = 1440, scheme: str = "light") -> Opened:
    return Opened(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), path)


@pytest.fixture(scope="session")
def stalled_page(made: Path, stalled_forecast: Forecast) -> Path:
    return html.write(stalled_forecast, made / "stalled.html")


@pytest.fixture(scope="session")
def pages(
    made: Path,
    stalled_page: Path,
    stalled_forecast: Forecast,
    healthy_forecast: Forecast,
    odd_forecasts: dict[str, Forecast],
) -> dict[str, Path]:
    found = {
        "stalled": stalled_page,
        "healthy": html.write(healthy_forecast, made / "healthy.html"),
        "matrix": written(
            [stalled_forecast, healthy_forecast, odd_forecasts["no_workers"]], made / "matrix.html"
        ),
        "compare": compare.write_html(
            differences([stalled_forecast.analysis, healthy_forecast.analysis]), made / "compare.html"
        ),
        "ranks": ranks.write(merge([make_job(made / "job", Job(read={2: 30 * MS}))]), made / "ranks.html"),
        "lesson": lesson_page(made),
    }
    shown = ("hostile", "bare", "torn", "one_batch")
    return found | {name: html.write(odd_forecasts[name], made / f"odd-{name}.html") for name in shown}


def lesson_page(made: Path) -> Path:
    directory = make_lesson(made / "lesson")
    add_results(directory, cuda=True)
    return lesson.write(directory, made / "lesson.html")


def test_every_page_is_silent_and_asks_for_nothing(browser: Any, pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        seen = opened(browser, path)
        assert seen.said == [], name
        assert seen.asked == [path.as_uri()], name
        assert seen.page.title() != "owned"
        assert seen.page.locator("img").count() == 0
        seen.page.close()


def test_the_network_is_out_of_reach(browser: Any, stalled_page: Path) -> None:
    page = opened(browser, stalled_page).page
    refused = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
    assert page.evaluate(refused) == "refused"


def test_nothing_is_cut_at_any_width(browser: Any, pages: dict[str, Path]) -> None:
    narrow = ("stalled", "matrix", "compare", "hostile", "ranks", "lesson")
    for name, width in [("stalled", 1440), ("lesson", 1440), *((name, 390) for name in narrow)]:
        page = opened(browser, pages[name], width).page
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        page.close()


def test_no_row_of_few_ends_beyond_the_edge_of_a_phone(browser: Any, pages: dict[str, Path]) -> None:
    cut = """[...document.querySelectorAll('.scroll')].filter(
        (one) => one.checkVisibility() && one.scrollWidth > one.clientWidth
            && one.querySelectorAll('tbody tr').length <= 16).map((one) => one.getAttribute('aria-label'))"""
    for name in ("stalled", "healthy", "matrix", "compare", "ranks", "lesson"):
        page = opened(browser, pages[name], 390).page
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate(cut) == [], name
        page.close()


def view(page: Any) -> list[int]:
    return [int(part) for part in page.locator("#timeline").get_attribute("data-view").split()]


def test_the_timeline_zooms_moves_and_jumps(browser: Any, stalled_page: Path) -> None:
    page = opened(browser, stalled_page).page
    canvas = page.locator("#timeline")
    whole = view(page)
    canvas.focus()
    for _ in range(20):
        page.keyboard.press("+")
    close = view(page)
    assert close[1] - close[0] < 0.01 * (whole[1] - whole[0])
    page.keyboard.press("ArrowRight")
    assert view(page)[0] > close[0]
    page.keyboard.press("Home")
    assert view(page) == whole
    page.get_by_role("button", name="Longest wait").click()
    jumped = view(page)
    assert jumped != whole
    page.get_by_role("button", name="Zoom out").click()
    assert view(page)[1] - view(page)[0] > jumped[1] - jumped[0]
    page.get_by_role("button", name="Whole run").click()
    assert view(page) == whole


def test_the_wheel_scrolls_the_page_and_zooms_only_when_asked_to(
    browser: Any, pages: dict[str, Path]
) -> None:
    page = opened(browser, pages["stalled"]).page
    canvas = page.locator("#timeline")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    whole = view(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 90)  # still on it when the page has moved by 60
    page.mouse.wheel(0, -60)
    page.wait_for_timeout(100)
    assert view(page) == whole
    box = canvas.bounding_box()  # the page has scrolled
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_timeout(100)
    assert view(page) != whole


def test_the_batch_under_the_pointer_is_traced_to_its_samples(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["stalled"]).page
    page.get_by_role("button", name="Longest wait").click()
    canvas = page.locator("#timeline")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.wait_for_timeout(100)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 26 + 2 * 29 + 10)
    tip = page.locator("#timeline-tip")
    assert tip.is_visible()
    for part in ("step", "samples", "made by worker 0", "read", "decode"):
        assert part in tip.inner_text()
    below = tip.bounding_box()["y"]
    assert below >= box["y"] + box["height"] - 1, "it hides no row"
    canvas.focus()
    page.keyboard.press(".")
    assert "step" in page.locator("#timeline-says").inner_text()


def test_charts_tell_their_numbers_under_the_pointer(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["stalled"]).page
    for chart in ("where", "waits", "whatif", "fixes"):
        mark = page.locator(f"[data-chart={chart}] .mark-rect path").first
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        for nudge in (0, 2):
            page.mouse.move(box["x"] + box["width"] / 4 + nudge, box["y"] + box["height"] * 0.75)
        tooltip = page.locator("#vg-tooltip-element")
        tooltip.wait_for(state="visible", timeout=5_000)
        assert any(character.isdigit() for character in tooltip.inner_text()), chart
        page.mouse.move(0, 0)


def test_a_matrix_shows_predicted_beside_measured(
    browser: Any,
    made: Path,
    stalled_forecast: Forecast,
    healthy_forecast: Forecast,
    odd_forecasts: dict[str, Forecast],
) -> None:
    path = written([odd_forecasts["no_workers"], stalled_forecast, healthy_forecast], made / "beside.html")
    page = opened(browser, path).page
    said = page.locator("[data-chart=map0] svg").text_content()
    assert said.count("pred. ") == 2
    point = page.locator("[data-chart=trust] .mark-symbol path").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    for nudge in (0, 1):
        page.mouse.move(box["x"] + box["width"] / 2 + nudge, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible", timeout=5_000)
    assert "predicted" in tooltip.inner_text() and "measured" in tooltip.inner_text()
    assert page.get_by_role("table", name="Predicted beside measured").is_visible()


def background(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def label_colour(page: Any) -> str:
    return str(
        page.locator("[data-chart=when] .role-axis-label text").first.evaluate("e => e.getAttribute('fill')")
    )


def test_dark_mode_follows_the_system_and_the_button(browser: Any, stalled_page: Path) -> None:
    page = opened(browser, stalled_page, scheme="dark").page
    dark, label = background(page), label_colour(page)
    page.get_by_role("button", name="Switch to the light theme").click()
    page.locator(f"[data-chart=when] .role-axis-label text:not([fill='{label}'])").first.wait_for(
        state="attached"
    )
    assert background(page) == "rgb(255, 255, 255)" != dark
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert background(page) == dark


def test_the_keyboard_reaches_everything(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["stalled"]).page
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, summary, canvas, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility()).length"
    )
    reached = set()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "[...document.querySelectorAll('a[href], button, summary, canvas, [tabindex=\"0\"]')]"
                ".indexOf(document.activeElement)"
            )
        )
    assert len(reached - {-1}) == wanted
    page.locator("#where summary").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("table").first.is_visible()


def test_a_healthy_run_unfolds_with_its_charts(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["healthy"]).page
    chart = page.locator("[data-chart=where] svg")
    assert chart.count() == 0
    page.locator("#where summary").first.click()
    chart.wait_for(state="visible", timeout=10_000)
    page.locator("#workers > details > summary").click()
    assert page.locator("#timeline").bounding_box()["width"] > 300


def test_the_lesson_draws_every_chart(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["lesson"]).page
    names = [each.get_attribute("data-chart") for each in page.locator("[data-chart]").all()]
    assert {int(name.removeprefix("claim").partition("_")[0]) for name in names} == set(range(1, 11))
    for name in names:
        drawn = page.locator(f"[data-chart={name}] svg")
        drawn.wait_for(state="visible", timeout=10_000)
        assert drawn.locator(".mark-rect path, .mark-symbol path, .mark-line path").count() > 0, name


def test_a_job_shows_each_rank_and_whom_the_others_waited_for(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["ranks"]).page
    assert "rank 2" in page.locator("#verdict h1").inner_text().replace("\xa0", " ")
    assert page.locator("[data-chart] svg").first.is_visible()
    table = page.locator("table:visible").first
    assert table.locator("tbody tr").count() == 4


def test_print_hides_what_paper_cannot_do(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["stalled"], scheme="dark").page
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.locator(".controls").is_visible()
    assert len(page.pdf()) > 20_000


def test_paper_gets_charts_that_the_screen_had_not_come_to(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["healthy"]).page
    assert page.locator("[data-chart] svg").count() == 0  # all is folded
    drawn = """() => { dispatchEvent(new Event("beforeprint")); return new Promise((done) => queueMicrotask(
        () => setTimeout(() => done(document.querySelectorAll("[data-chart] svg").length), 0))) }"""
    assert page.evaluate(drawn) == page.locator("[data-chart]").count()


PAPER = 182 / 25.4 * 96
"""Width of a sheet between its margins, in px."""


def test_paper_gets_light_charts_of_its_own_width(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["stalled"], scheme="dark").page
    dark = label_colour(page)
    widest = "Math.max(...[...document.querySelectorAll('[data-chart] svg')].map((one) => one.clientWidth))"
    assert page.evaluate(widest) > PAPER + 100
    drawn = """(name) => { dispatchEvent(new Event(name)); return new Promise((done) => queueMicrotask(
        () => setTimeout(done, 0))) }"""
    page.evaluate(drawn, "beforeprint")
    assert page.evaluate(widest) <= PAPER + 1
    assert label_colour(page) != dark
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.locator(f"[data-chart=when] .role-axis-label text[fill='{dark}']").first.wait_for(state="attached")
    assert page.evaluate(widest) > PAPER + 100


@pytest.mark.heavy
def test_axe_finds_no_serious_violation(browser: Any, pages: dict[str, Path]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    shown = [
        ("stalled", "light"),
        ("stalled", "dark"),
        ("healthy", "light"),
        ("matrix", "dark"),
        ("compare", "light"),
        ("ranks", "dark"),
        ("lesson", "light"),
    ]
    for name, scheme in [*shown, ("bare", "dark"), ("hostile", "light")]:
        page = opened(browser, pages[name], scheme=scheme).page
        for fold in page.locator("details.fold").all():
            fold.evaluate("e => { e.open = true; }")
        page.wait_for_timeout(200)
        found = axe.run(page).response["violations"]
        bad = [
            (one["id"], one["nodes"][0]["html"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert bad == [], (name, scheme)
        page.close()
