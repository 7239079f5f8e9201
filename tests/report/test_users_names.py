"""A name that a user gave to a stage stands in every output as it was given, whatever it looks like."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.report.export import perfetto, tables
from pipeprof.report.page import html
from pipeprof.report.text import terminal
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, Plan, make_run
from tests.report.page.test_html import Page

NAME = "a: b. {c} %s"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A run that waits for a stage with colons, full stops and templates in its name."""
    stages = {"read": MS, f"stage:{NAME}": 60 * MS, f"transform:{NAME}": 20 * MS, "collate": MS}
    return load(make_run(tmp_path_factory.mktemp("named") / "run", Plan(workers=1, stages=stages)))


def test_the_verdict_names_it(named: Analysis) -> None:
    assert named.verdict.cause == f"stage:{NAME}"
    statement, said = named.verdict.statement, named.verdict.as_dict()
    assert f" waiting for data, most of it for the data set's own stage “{NAME}” (" in statement.headline
    assert NAME not in statement.evidence
    assert said["verdict"]["sentence"] == f"{statement.headline} {statement.evidence}"
    assert said["ledger_ns"].keys() >= {f"stage:{NAME}", f"transform:{NAME}"}


def test_the_page_and_the_terminal_name_it(named: Analysis) -> None:
    headline, forecast = named.verdict.statement.headline, Forecast(named)
    page = Page(html.render(forecast))
    assert headline in page.text
    assert page.text.count(NAME) >= 4, "headline, ledger, stages"
    shown = io.StringIO()
    terminal.show(forecast, file=shown)
    assert headline in " ".join(shown.getvalue().split())
    assert sum(line.strip().startswith(NAME) for line in shown.getvalue().splitlines()) == 2


def test_exports_name_it(named: Analysis, tmp_path: Path) -> None:
    paths = tables.write(named.run, named.verdict.as_dict(), "json", tmp_path / "tables")
    assert any(json.dumps(f"stage:{NAME}") in path.read_text() for path in paths)
    written = perfetto.write(named, tmp_path / "run.perfetto")
    assert f"stage:{NAME}".encode() in written.read_bytes()
