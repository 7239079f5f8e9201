"""Sharing of work among the cores: all of it is done once, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeprof.analyse.job import cores
from pipeprof.analyse.job.merge import merge
from pipeprof.errors import TraceError
from tests.analyse.jobs import Job, make_job
from tests.factory import MS


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(cores, "FEWEST_RANKS", 4)


def test_each_number_is_worked_on_once() -> None:
    def work(numbers: Sequence[int]) -> tuple[int, list[int]]:
        return os.getpid(), [number**2 for number in numbers]

    made = cores.shared_out(work, 9)
    assert len({pid for pid, _ in made}) == 2
    assert sorted(square for _, squares in made for square in squares) == [n**2 for n in range(9)]
    assert len(cores.shared_out(work, 3)) == 1, "too few to share"


def test_the_work_of_a_process_that_died_is_done_here() -> None:
    parent = os.getpid()

    def work(numbers: Sequence[int]) -> list[int]:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(numbers)

    assert sorted(number for part in cores.shared_out(work, 8) for number in part) == list(range(8))


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_is_raised_here(bad: int) -> None:
    def work(numbers: Sequence[int]) -> None:
        if bad in numbers:
            raise TraceError("it is damaged", "run again")

    with pytest.raises(TraceError, match="it is damaged") as error:
        cores.shared_out(work, 8)
    assert error.value.remedy == "run again"


def test_a_process_with_other_threads_is_not_copied() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(cores.shared_out(list, 8)) == 1
    finally:
        stop.set()
        thread.join()


def test_a_merge_on_two_cores_says_what_it_says_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {rank: f"node{rank // 2}" for rank in range(6)}
    job = make_job(tmp_path, Job(ranks=6, read={4: 30 * MS}, hosts=hosts, offset_ns={"node1": 10**12}))
    shared = merge([job]).as_dict()
    monkeypatch.setattr(cores, "FEWEST_RANKS", 100)
    assert merge([job]).as_dict() == shared
    assert shared["verdict"]["rank"] == 4


def test_a_damaged_part_is_left_out_whichever_process_reads_it(tmp_path: Path) -> None:
    job = make_job(tmp_path, Job(ranks=5, read={2: 30 * MS}))
    for rank in (1, 4):
        path = job / f"rank-{rank}" / "stages.parquet"
        path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    found = merge([job])
    assert [row.rank for row in found.ranks] == [0, 2, 3]
    assert sorted(doubt.problem.split()[1] for doubt in found.doubts if doubt.name == "unreadable-ranks") == [
        "1",
        "4",
    ]
