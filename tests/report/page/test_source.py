"""Source text of hot lines: shown where the file is the one that ran, and only where it is wanted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.analyse.why.lines import HotLine
from pipeprof.cli import cli
from pipeprof.record.meta import RunMeta
from pipeprof.report.page.source import MOST_CHARACTERS, source_of
from tests.factory import MS, Plan, Sampled, make_run

BEGAN = RunMeta(created_at="2026-01-01T00:00:00+00:00")
BEFORE, AFTER = 1_767_225_600 - 60, 1_767_225_600 + 60
TEXT = "import zipfile\n    scene = zipfile.ZipFile(path)  # opened\n"


def written(path: Path, changed_s: float, text: str = TEXT) -> Path:
    path.write_text(text)
    os.utime(path, (changed_s, changed_s))
    return path


def line(path: Path, number: int = 2) -> HotLine:
    return HotLine("stage:getitem", path.name, number, "f", 1.0, path=str(path))


def test_the_line_is_shown_as_it_ran(tmp_path: Path) -> None:
    path = written(tmp_path / "data.py", BEFORE)
    assert source_of(BEGAN)(line(path)) == "scene = zipfile.ZipFile(path)  # opened"


@pytest.mark.parametrize("number", [0, 3, 10_000])
def test_a_line_that_is_not_there_is_empty(tmp_path: Path, number: int) -> None:
    assert source_of(BEGAN)(line(written(tmp_path / "data.py", BEFORE), number)) == ""


def test_a_file_that_has_changed_since_is_not_shown(tmp_path: Path) -> None:
    assert source_of(BEGAN)(line(written(tmp_path / "data.py", AFTER))) == ""


def test_a_file_that_is_no_python_source_is_not_read(tmp_path: Path) -> None:
    """A record names the files: one of somebody else's must not put a secret into the page."""
    assert source_of(BEGAN)(line(written(tmp_path / "secret.key", BEFORE))) == ""


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.py")
    os.utime(tmp_path / "data.py", (BEFORE, BEFORE))
    assert source_of(BEGAN)(line(tmp_path / "data.py")) == ""


def test_nothing_is_shown_where_the_file_or_the_time_is_not_known(tmp_path: Path) -> None:
    assert source_of(BEGAN)(line(tmp_path / "gone.py")) == ""
    assert source_of(RunMeta())(line(written(tmp_path / "data.py", BEFORE))) == ""


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "data.py", BEFORE, "\n" + "x" * 1000)
    assert len(source_of(BEGAN)(line(path))) == MOST_CHARACTERS + 1


@pytest.mark.parametrize("hidden", [False, True])
def test_the_page_leaves_source_out_where_it_is_asked_to(tmp_path: Path, hidden: bool) -> None:
    path = written(tmp_path / "data.py", BEFORE)
    sampled = (Sampled("getitem", ((str(path), 2, "Scenes.__getitem__"),), 90 * MS, worker=0),)
    run = make_run(tmp_path / "run", Plan(batches=40, stages={"getitem": 60 * MS}, lines=sampled))
    done = CliRunner().invoke(cli, ["report", str(run), *(["--no-source"] if hidden else [])])
    assert done.exit_code == 0, done.output
    page = (run / "report.html").read_text()
    assert "data.py:2" in page
    assert ("zipfile.ZipFile(path)" in page) != hidden
