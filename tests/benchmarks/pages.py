"""Make reports/ and what the README shows anew, from runs that it takes.

    python -m tests.benchmarks.pages [NAME ...]

Run it on a quiet machine; it takes some minutes for all, or makes those that are named. A run that does not
show what its page is there for ends it. Each page lies beside the command that made it in
`reports/index.html`; the README's pictures are of those very pages, its terminal output of one of those runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeprof.analyse.analysis import load
from tests.report.page.test_browser import CHROMIUM, FLAGS

ROOT: Final = Path(__file__).parents[2]
REPORTS: Final = ROOT / "reports"
SHOWN: Final = "reopened_archive"
"""The page whose terminal output the README shows."""
OUTPUT_LINES: Final = 15


class Page(NamedTuple):
    """One page: the verb that makes its run, and what to say of it."""

    name: str
    command: tuple[str, ...]
    title: str
    about: str
    shows: str = ""
    """Cause or mechanism that its verdict has to name; empty for what has no verdict."""


PAGES: Final = (
    Page(
        "hdd_4workers",
        ("run", "scenarios/hdd_4workers.yaml"),
        "An HDD and four workers",
        "The disk's arm is the bottleneck; more workers do not help. Disk and accelerator are emulated.",
        "storage-latency",
    ),
    Page(
        "ssd_4workers",
        ("run", "scenarios/ssd_4workers.yaml"),
        "An SSD and four workers",
        "The same loop, nothing to fix: the accelerator is kept busy. Storage and accelerator are emulated.",
        "accelerator",
    ),
    Page(
        "reopened_archive",
        ("trace", "tests/diagnosis/reports/zip_reopened.py"),
        "An unmodified script that opens an archive for each sample",
        "Nothing is emulated but the step, which sleeps: the page names the mechanism and the line.",
        "reopened",
    ),
    Page(
        "oversized_jpegs",
        ("trace", "tests/diagnosis/reports/oversized_jpegs.py"),
        "An unmodified script that decodes far larger pictures than it trains on",
        "Nothing is emulated but the step, which sleeps.",
        "over-decode",
    ),
    Page(
        "weighted_sampler",
        ("trace", "tests/diagnosis/reports/weighted_sampler.py"),
        "An unmodified script whose sampler draws millions of weights",
        "Nothing is emulated but the step, which sleeps: the time goes where no worker is.",
        "sampler",
    ),
    Page(
        "parquet_row_group",
        ("trace", "tests/diagnosis/reports/parquet_row_group.py"),
        "An unmodified script that reads a whole row group for each row",
        "Nothing is emulated but the step, which sleeps.",
        "over-read",
    ),
    Page(
        "tiers_by_workers",
        ("run", "scenarios/tiers_by_workers.yaml"),
        "Three places by three numbers of workers",
        "A matrix: one map for each place, and what one of its runs predicts beside what was measured.",
    ),
)


def main() -> None:
    """Take the runs, keep their pages, draw the pictures, write the index."""
    parser = argparse.ArgumentParser(description="Make the pages of reports/ anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the pages to make; all by default")
    names = parser.parse_args().names
    if unknown := sorted({*names} - {page.name for page in PAGES}):
        parser.error(f"no such page: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as scratch:
        for page in PAGES:
            if names and page.name not in names:
                continue
            print(f"{page.name}: pipeprof {' '.join(page.command)}", flush=True)
            made, said = _made(page, Path(scratch) / page.name)
            text = made.read_text().replace(f"{scratch}/", "runs/")
            (REPORTS / f"{page.name}.html").write_text(text)
            if page.name == SHOWN:
                _show_in_readme(page, said)
    _draw()
    (REPORTS / "index.html").write_text(_index())


def _made(page: Page, out: Path) -> tuple[Path, str]:
    """Take a run; return its page and what was printed on standard error, where `trace` has its verdict."""
    verb, *arguments = page.command
    command = [sys.executable, "-m", "pipeprof", verb, "--out", str(out), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, check=True, env=environment, stderr=subprocess.PIPE, text=True)
    if page.shows:
        verdict = load(out).verdict
        found = (verdict.cause, verdict.shown.mechanism.word if verdict.shown else "")
        if page.shows not in found:
            raise SystemExit(f"{page.name} does not show {page.shows!r}: {verdict}; take it again")
    return out / "report.html", done.stderr


def _show_in_readme(page: Page, said: str) -> None:
    lines = said[said.index("pipeprof ·") :].splitlines()[1 : OUTPUT_LINES + 1]
    script = Path(page.command[-1]).name
    shown = "\n".join([f"$ pipeprof trace {script}", *lines, "…"])
    readme = ROOT / "README.md"
    before, begin, rest = readme.read_text().partition("<!-- terminal output of a run -->\n")
    _, end, after = rest.partition("<!-- end of it -->\n")
    assert begin and end, "README.md has lost the place of its terminal output"
    readme.write_text(f"{before}{begin}```text\n{shown}\n```\n{end}{after}")


def _draw() -> None:
    images = REPORTS / "img"
    with _opened("hdd_4workers", scheme="light", height=620) as page:
        page.screenshot(path=images / "hdd_first_screen.png")
    with _opened("hdd_4workers", scheme="dark", height=900) as page:
        page.get_by_role("button", name="Longest wait", exact=True).click()
        page.wait_for_timeout(500)
        page.locator("canvas").first.screenshot(path=images / "hdd_longest_wait_dark.png")
    with _opened("reopened_archive", scheme="light", height=620) as page:
        page.screenshot(path=images / "reopened_first_screen.png")


@contextmanager
def _opened(name: str, scheme: str, height: int) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": height}, color_scheme=scheme)
        page.goto((REPORTS / f"{name}.html").as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
        yield page
        browser.close()


def _index() -> str:
    day = f"{date.today():%d %B %Y}".lstrip("0")
    items = "\n".join(
        f'  <dt><a href="{page.name}.html">{escape(page.title)}</a></dt>\n'
        f"  <dd>{escape(page.about)}<br>\n    <code>pipeprof {escape(' '.join(page.command))}</code></dd>"
        for page in PAGES
    )
    return _INDEX.format(day=day, items=items)


_INDEX: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pipeprof: example reports</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem;
    overflow-wrap: anywhere; }}
  dt {{ margin-top: 1.5rem; font-weight: 600; }} dd {{ margin: .25rem 0 0; }} code {{ font-size: .9em; }}
</style>
<h1>Example reports</h1>
<p>Each page is one file that works offline, as the command beside it made it on {day} on a shared virtual
machine with two cores and no GPU. Disks, accelerators and links are emulated where the page says so; decode,
transforms and workers are real. <code>python -m tests.benchmarks.pages</code> makes them anew.</p>
<dl>
{items}
  <dt><a href="lesson/index.html">The lesson, the whole course</a></dt>
  <dd>Each claim of the lecture that can be measured, as measured on 30 November 2026.<br>
    <code>pipeprof lesson</code></dd>
</dl>
"""


if __name__ == "__main__":
    main()
