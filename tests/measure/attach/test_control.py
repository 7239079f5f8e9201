"""The directory between pipeprof and a job goes with whichever of the two is last."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from pipeprof.measure.attach import attach, control
from pipeprof.measure.attach.control import PREFIX, Control


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_by(directory: Path, **changes: object) -> Path:
    """The directory of a pipeprof that was killed before a job knew of it."""
    whole = Control.make({"workers": []})
    path = directory / f"{PREFIX}left"
    whole.directory.rename(path)
    asked = Control(str(path)).request()
    (path / "request.json").write_text(json.dumps({**asked, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "stays"),
    [({"started": -1}, False), ({}, True), ({"started": -1, "pids": "pid:[1]"}, True)],
    ids=["its pipeprof was killed", "its pipeprof runs", "it is of another container"],
)
def test_what_a_killed_pipeprof_left_is_removed_by_the_next(
    temporary: Path, changes: dict[str, object], stays: bool
) -> None:
    path = left_by(temporary, **changes)
    made = Control.make({"workers": []})
    assert path.exists() == stays
    assert made.directory.exists()


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (3600, False)])
def test_one_that_is_being_made_stays(temporary: Path, age_s: float, stays: bool) -> None:
    path = temporary / f"{PREFIX}empty"
    path.mkdir()
    now = path.stat().st_mtime
    os.utime(path, (now - age_s, now - age_s))
    control.remove_abandoned()
    assert path.exists() == stays


def test_a_job_that_hears_of_a_dead_pipeprof_removes_what_it_left(temporary: Path) -> None:
    path = left_by(temporary, started=-1)
    attach.write_script(Control(str(path)))
    exec((path / "enter.py").read_text(), {})
    assert not path.exists()
