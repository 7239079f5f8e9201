"""Real ranks that meet over gloo, as torchrun would start them: copies of this process, one a rank."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.record import directories, reader
from tests.forked import Program, verb
from tests.measure.session.test_ranks import forbid

SCENARIO = """
data: {format: tensor_files, samples: 256, sample_bytes: 4000}
storage: {tier: nvme}
loader: {batch_size: 2, workers: 1, persistent_workers: true}
accelerator: {kind: emulated, step_ms: 5}
run: {steps: 50, warmup_steps: 5}
"""
Start = Callable[..., list[Program]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the ranks of one job with `pipeprof run`; what still runs at the end is killed."""
    started: list[Program] = []

    def begin(ranks: int, *arguments: str, out: str = "job") -> list[Program]:
        (tmp_path / "short.yaml").write_text(SCENARIO)
        port = free_port()
        job = [
            Program(rank_of(rank, ranks, port, *arguments, "--out", out), tmp_path) for rank in range(ranks)
        ]
        started.extend(job)
        return job

    yield begin
    for program in started:
        program.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rank_of(rank: int, ranks: int, port: int, *arguments: str) -> Callable[[], None]:
    return as_rank(rank, ranks, port, verb("run", "short.yaml", *arguments))


def as_rank(rank: int, ranks: int, port: int, run: Callable[[], None]) -> Callable[[], None]:
    """`run` where torchrun would have it: with the place of one rank in its environment."""

    def main() -> None:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(ranks),
            LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            PIPEPROF_CACHE="cache",
        )
        run()

    return main


@pytest.mark.slow
def test_the_others_waiting_is_charged_to_the_rank_on_a_slow_disk(start: Start, tmp_path: Path) -> None:
    # 260 ms of reading a step: much, so that four ranks on few cores do not hold each other up as long
    options = ["--set", "loader.batch_size=4", "--set", "run.steps=28"]
    for slow in ("storage.tier=hdd", "storage.figures.seek_ns=60000000"):
        options += ["--set-rank", f"2:{slow}"]
    job = [program.finished() for program in start(4, *options)]
    assert [done.returncode for done in job] == [0, 0, 0, 0], job[0].stderr
    found = merge([tmp_path / "job"])
    assert found.status == "complete"
    assert (found.verdict.rank, found.verdict.cause) == (2, "storage-latency")
    for row in found.ranks:
        assert sum(row.ledger_ns.values()) == row.wall_ns
        if row.rank != 2:
            waited = {owner: ns for owner, ns in row.ledger_ns.items() if owner.startswith("rank:")}
            late = sum(ns for owner, ns in waited.items() if owner.startswith("rank:2:"))
            assert late > sum(waited.values()) / 2
            assert max(waited, key=lambda owner: waited[owner]) == "rank:2:storage"
    assert "for rank 2" in " ".join(job[0].stdout.split())
    assert not job[1].stdout
    assert (tmp_path / "job" / "report.html").exists()


@pytest.mark.slow
def test_ranks_on_one_machine_share_its_emulated_device(start: Start, tmp_path: Path) -> None:
    for program in start(2, "--set", "run.steps=30", "--no-report"):
        assert program.finished().returncode == 0
    served = [reader.load(path).meta.storage for path in directories.parts(tmp_path / "job").values()]
    batches = [
        reader.load(path).table("batches").num_rows for path in directories.parts(tmp_path / "job").values()
    ]
    assert [storage.ranks for storage in served] == [2, 2]
    assert max(storage.emulator.requests for storage in served) >= 2 * sum(batches)


@pytest.mark.slow
def test_ranks_read_different_samples_and_end_after_the_same_step(start: Start, tmp_path: Path) -> None:
    options = ("--set", "run.steps=null", "--set", "run.seconds=1", "--no-report")
    for program in start(2, *options):
        assert program.finished().returncode == 0
    runs = [reader.load(path) for path in directories.parts(tmp_path / "job").values()]
    steps = [run.table("collectives").num_rows for run in runs]
    assert steps[0] == steps[1] > 0
    # of each batch the record names one sample; within an epoch no two ranks read the same one
    batches = [run.table("batches").to_pylist() for run in runs]
    named = [{row["slowest_index"] for row in rows if row["epoch"] == 0} for rows in batches]
    assert min(len(one) for one in named) > 10
    assert not named[0] & named[1]


@pytest.mark.slow
def test_a_killed_rank_leaves_a_run_that_can_be_read(start: Start, tmp_path: Path) -> None:
    job = start(2, "--set", "run.steps=100000", "--no-report")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(
        steps_in(tmp_path / "job" / f"rank-{rank}") > 20 for rank in (0, 1)
    ):
        time.sleep(0.05)
    os.killpg(job[1].pid, signal.SIGKILL)
    survivor = job[0].finished()
    assert survivor.returncode == 2
    assert "another rank is gone" in survivor.stderr
    assert "Traceback" not in survivor.stderr
    job[1].finished()
    found = merge([tmp_path / "job"])
    assert [row.status for row in found.ranks] == ["failed", "partial"]
    assert min(row.steps for row in found.ranks) > 0
    assert "partial-ranks" in [doubt.name for doubt in found.doubts]


def steps_in(part: Path) -> int:
    return reader.load(part).table("steps").num_rows if (part / "run.json").exists() else 0


@pytest.mark.slow
def test_a_rank_that_may_not_write_trains_on_with_the_others(start: Start, tmp_path: Path) -> None:
    forbid(tmp_path / "job", 1)
    allowed, forbidden = (program.finished() for program in start(2, "--no-report"))
    assert allowed.returncode == 0
    assert forbidden.returncode == 2
    assert "rank 1 goes on and is not recorded" in forbidden.stderr
    assert "Traceback" not in forbidden.stderr
    assert reader.load(tmp_path / "job" / "rank-0").table("steps").num_rows == 50


@pytest.mark.slow
def test_a_second_job_leaves_the_first_ones_directory_alone(start: Start, tmp_path: Path) -> None:
    for program in start(2, "--no-report"):
        assert program.finished().returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "job").rglob("*.*")}
    for program in start(2, "--no-report"):
        done = program.finished()
        assert done.returncode == 2
        assert "another job" in done.stderr
        assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "job").rglob("*.*")} == before


def test_set_rank_outside_a_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SCENARIO)
    done = Program(verb("run", "short.yaml", "--set-rank", "2:storage.tier=hdd"), tmp_path).finished()
    assert done.returncode == 2
    assert "torchrun" in done.stderr
    assert not (tmp_path / "runs").exists()
