"""`pipeprof clean` deletes what it showed and no more; `pipeprof doctor` says what is missing, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeprof.cli import cli
from pipeprof.measure.host.checkup import checkup
from pipeprof.measure.host.machine import package_versions
from tests.factory import Plan, make_run


def clean(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli, ["clean", *arguments], input=answer)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs of 1 to 3 November 2026, a running one, and a directory that is no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for day in range(1, 5):
        directory = make_run(tmp_path / "runs" / f"day-{day}", Plan(batches=5))
        meta = json.loads((directory / "run.json").read_text())
        meta |= {"created_at": f"2026-11-0{day}T10:00:00+00:00"}
        if day == 1:
            meta |= {"status": "running", "ended_at": None}
        (directory / "run.json").write_text(json.dumps(meta))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def left(runs: Path) -> set[str]:
    return {path.name for path in runs.iterdir()}


def test_nothing_goes_without_a_limit(runs: Path) -> None:
    assert clean("-y").exit_code == 2 and len(left(runs)) == 5


def test_what_goes_is_shown_and_asked_for(runs: Path) -> None:
    asked = clean("--keep-last", "1", answer="n\n")
    assert "runs/day-2" in asked.output and len(left(runs)) == 5
    assert clean("--keep-last", "1", answer="y\n").exit_code == 0
    assert {"day-4", "notes"} <= left(runs) and not {"day-2", "day-3"} & left(runs)


def test_copies_of_runs_at_a_url_go_and_what_was_not_sent_stays(runs: Path, tmp_path: Path) -> None:
    copy, unsent = (tmp_path / "user" / "pipeprof" / kind / "job" for kind in ("incoming", "outgoing"))
    for directory in (copy, unsent):
        directory.mkdir(parents=True)
        (directory / "run.json").write_bytes(bytes(1000))
    done = clean("--cache", "-y")
    assert "1.00 KB" in done.output and "incoming/job" in done.output
    assert unsent.exists() and not copy.exists() and len(left(runs)) == 5


def test_nothing_is_deleted_at_a_url(runs: Path) -> None:
    refused = clean("s3://bucket/jobs", "--keep-last", "1", "-y")
    assert "s3://bucket/jobs is not on this machine" in str(refused.exception)
    assert len(left(runs)) == 5


def test_both_limits_must_be_past(runs: Path) -> None:
    assert clean("--keep-last", "3", "--older-than", "1d", "-y").exit_code == 0
    assert {"day-2", "day-3", "day-4"} <= left(runs)
    assert "nothing to delete" in clean("--older-than", "99999w", "-y").output


def test_made_data_go_and_links_stay(runs: Path, tmp_path: Path) -> None:
    made = tmp_path / "cache" / "data" / "jpegs"
    made.mkdir(parents=True)
    (made / "0.jpg").write_bytes(b"x" * 1000)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache" / "data" / "link").symlink_to(elsewhere)
    assert "1.00 KB" in clean("--cache", "-y").output
    assert not made.exists() and elsewhere.exists() and len(left(runs)) == 5


@pytest.mark.parametrize("age", ["3x", "d", "-1d", ""])
def test_an_age_that_is_none(runs: Path, age: str) -> None:
    result = clean("--older-than", age, "-y")
    assert result.exit_code == 2 and "is not an age" in result.output


def test_doctor_says_what_a_kernel_does_not_show(tmp_path: Path) -> None:
    found = {check.name: check for check in checkup(tmp_path)}
    for name in ("time without a core", "why workers wait", "disks", "shared memory"):
        assert not found[name].seen and found[name].remedy, name
    assert found["packages"].seen and "torch" in found["packages"].says


def test_doctor_warns_of_a_limited_attach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = tmp_path / "proc/sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    scope.write_text("2\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = {check.name: check for check in checkup(tmp_path)}
    assert not found["attaching"].seen and "ptrace_scope is 2" in found["attaching"].says


def test_doctor_prints_for_people_and_machines() -> None:
    assert "packages" in CliRunner().invoke(cli, ["doctor"]).output
    assert json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).output)[0]["name"] == "packages"


def test_doctor_names_the_packages_that_a_run_records(tmp_path: Path) -> None:
    (packages,) = (check for check in checkup(tmp_path) if check.name == "packages")
    for name, version in package_versions().items():
        assert f"{name} {version}" in packages.says
