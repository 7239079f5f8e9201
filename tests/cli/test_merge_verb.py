"""`pipeprof merge` and `pipeprof report` on the directory of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeprof.cli import cli
from pipeprof.errors import PipeprofError
from tests.analyse.jobs import Job, make_job
from tests.factory import MS


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("job"), Job(read={2: 30 * MS}))


def pipeprof(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("verb", ["merge", "report"])
def test_a_jobs_directory_is_shown_as_one(job: Path, verb: str) -> None:
    done = pipeprof(verb, job)
    assert done.exit_code == 0, done.output
    assert "for rank 2" in " ".join(done.output.split())
    assert f"Report: {job / 'report.html'}" in done.output
    assert "rank 2" in (job / "report.html").read_text().replace("\xa0", " ")


def test_merging_parts_leaves_their_own_pages_alone(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(ranks=2, steps=30))
    (job / "rank-0" / "report.html").write_text("its own")
    done = pipeprof("merge", job / "rank-0", job / "rank-1")
    assert done.exit_code == 0, done.output
    assert (job / "rank-0" / "report.html").read_text() == "its own"
    assert (job / "report.html").exists()


def test_for_machines(job: Path) -> None:
    said = json.loads(pipeprof("merge", job, "--json").output)
    assert (said["schema"], said["verdict"]["rank"], said["status"]) == (1, 2, "complete")
    assert json.loads(pipeprof("report", job, "--json").output) == said


def test_a_part_is_a_run_like_any_other(job: Path) -> None:
    done = pipeprof("report", job / "rank-0", "--json")
    said = json.loads(done.output)
    assert said["verdict"]["cause"] == "collective"
    assert "other ranks" in said["verdict"]["sentence"]
    assert sum(said["ledger_ns"].values()) == said["wall_ns"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("merge", "{job}/nothing"), "no run"),
        (("merge", "{job}", "{job}/rank-1"), "rank 1 is in"),
        (("report", "{job}", "--png", "{job}/pictures"), "have no pictures"),
        (("compare", "{job}", "{job}"), "holds the runs of 4 ranks"),
        (("predict", "{job}/rank-0", "--ranks", "8"), "one of 4 ranks"),
    ],
)
def test_what_cannot_be_is_refused(job: Path, arguments: tuple[str, ...], problem: str) -> None:
    done = pipeprof(*(argument.format(job=job) for argument in arguments))
    assert isinstance(done.exception, PipeprofError)
    assert problem in str(done.exception)
