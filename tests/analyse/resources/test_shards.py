"""The slowest shard of one run, by name: in the evidence and on the page, with planted times."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.analyse.resources.shards import ShardTime, shard_times, slow_shard
from pipeprof.record.directories import part_of
from pipeprof.record.reader import load
from pipeprof.report.page.workers import workers
from tests.analyse.jobs import MS, Job, make_job

BAD = "train/00003.tar"
SHARDS = ["train/00000.tar", "train/00001.tar", BAD, None]


def read_from(directory: Path, slow_ms: int) -> Analysis:
    """A run whose batches come from three shards and from no known one, and take longer from one of them."""
    slow = [(12 + slow_ms * (shard == BAD)) * MS for shard in SHARDS]
    job = make_job(directory, Job(steps=81, warmup=1, read={2: slow}, shards={2: SHARDS}))
    return analyse(load(part_of(job, 2)))


def test_the_slowest_shard_is_named_in_the_evidence_and_on_the_page(tmp_path: Path) -> None:
    analysis = read_from(tmp_path / "job", slow_ms=30)
    times = shard_times(analysis.run, analysis.timeline)
    assert [row.shard for row in times[:1]] == [BAD]
    assert {row.shard for row in times} == {name for name in SHARDS if name}
    assert sum(row.batches for row in times) == 60
    assert f"A batch read from {BAD} took 4" in analysis.verdict.sentence
    assert "one from the 2 other shards 12.0 ms (median)" in analysis.verdict.sentence
    (table,) = (table for table in workers(analysis).tables if table.caption == "Shards")
    assert [row.cells[0] for row in table.rows] == [row.shard for row in times]


def test_shards_that_are_alike_are_not_talked_of(tmp_path: Path) -> None:
    analysis = read_from(tmp_path / "job", slow_ms=2)
    assert "A batch read from" not in analysis.verdict.sentence


@pytest.mark.parametrize(
    "times",
    [
        [],
        [ShardTime("a", 9, 30.0), ShardTime("b", 9, 10.0)],  # two do not tell which is unusual
        [ShardTime("a", 2, 30.0), *(ShardTime(name, 9, 10.0) for name in "bcd")],
        [ShardTime("a", 9, 14.0), *(ShardTime(name, 9, 10.0) for name in "bcd")],
    ],
)
def test_none_stands_out(times: list[ShardTime]) -> None:
    assert slow_shard(times) is None
