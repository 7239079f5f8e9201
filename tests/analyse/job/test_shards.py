"""Stragglers by shard: jobs in which a rank is late for batches from one file, with planted costs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.analyse.job.merged import JobAnalysis
from pipeprof.report import jobs as report
from tests.analyse.jobs import Job, make_job
from tests.factory import MS
from tests.unprobed_runs import unprobe

FOUR = [f"train/{number:05}.tar" for number in range(4)]
BAD = FOUR[3]
LATE_MS = 58


def reading(shard_of: list[str | None], bad: set[str | None]) -> Job:
    """Rank 2 of four reads `LATE_MS` longer for each batch that comes from a bad shard; rank 1 reads too."""
    slow = [(2 + LATE_MS * (shard in bad)) * MS for shard in shard_of]
    return Job(steps=81, warmup=1, read={2: slow}, shards={2: shard_of, 1: ["train/fine.tar"]})


@pytest.fixture(scope="module")
def one_bad(tmp_path_factory: pytest.TempPathFactory) -> JobAnalysis:
    job = make_job(tmp_path_factory.mktemp("job"), reading([*FOUR], {BAD}))
    return merge([job])


def test_the_shard_that_made_a_rank_late_is_named(one_bad: JobAnalysis) -> None:
    verdict = one_bad.verdict
    assert (verdict.rank, verdict.shard) == (2, BAD)
    assert verdict.statement.evidence.endswith(
        f"100% of the waiting was for batches read from {BAD}, which made 25% of its steps."
    )
    assert one_bad.as_dict()["verdict"]["shard"] == BAD


def test_the_table_says_what_each_shard_cost_the_others(one_bad: JobAnalysis) -> None:
    assert one_bad.shards is not None
    assert [(row.rank, row.shard) for row in one_bad.shards[:1]] == [(2, BAD)]
    worst, *rest = one_bad.shards
    assert (worst.steps, worst.steps_share) == (20, 0.25)
    assert worst.caused_ns == pytest.approx(one_bad.ranks[2].caused_ns, rel=1e-6)
    assert worst.caused_ns == pytest.approx(3 * LATE_MS * MS * 20, rel=0.06)
    assert worst.caused_share == 1
    assert {(row.rank, row.shard, row.caused_ns) for row in rest} == {
        (1, "train/fine.tar", 0), *((2, shard, 0) for shard in FOUR[:3])
    }  # fmt: skip
    assert next(row for row in rest if row.rank == 1).caused_share is None, "nobody waited for it"


def test_page_terminal_and_dictionary_show_it(one_bad: JobAnalysis, tmp_path: Path) -> None:
    said = json.loads(json.dumps(one_bad.as_dict()))["shards"]
    assert (said[0]["rank"], said[0]["shard"], said[0]["caused_share"]) == (2, BAD, 1)
    page = report.write(one_bad, tmp_path / "report.html").read_text()
    assert "The shards" in page
    assert all(shard in page for shard in FOUR)
    lines = report.lines(one_bad)
    assert any(line.startswith(BAD) and "100%" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_shards_of_unprobed_batches_are_those_of_probed_ones(tmp_path: Path) -> None:
    """Seven of eight batches name no shard, and the others waited for the bad one's among them too."""
    job = make_job(tmp_path / "whole", reading([*FOUR, None], {BAD}))
    whole = merge([job])
    for part in job.glob("rank-*"):
        unprobe(part, tmp_path / "some" / part.name, every=8, block=7)
    some = merge([tmp_path / "some"])
    assert (some.verdict.rank, some.verdict.shard) == (2, BAD)
    assert "100% of the waiting was for batches read from" in some.verdict.sentence
    assert whole.shards is not None and some.shards is not None
    worst, usual = some.shards[0], whole.shards[0]
    assert worst.caused_ns == pytest.approx(usual.caused_ns, rel=1e-6)
    assert (worst.shard, worst.steps, worst.caused_share) == (BAD, 2, 1)
    assert {(row.rank, row.caused_ns) for row in some.shards[1:]} <= {(1, 0), (2, 0)}


def test_a_probed_batch_whose_shard_is_not_known_costs_none_of_the_known_ones(tmp_path: Path) -> None:
    make_job(tmp_path / "whole", reading(["a.tar", None], {None}))
    for part in (tmp_path / "whole").glob("rank-*"):
        unprobe(part, tmp_path / "some" / part.name, every=7, block=6)
    found = merge([tmp_path / "some"])
    assert found.shards is not None and found.verdict.shard is None
    assert [(row.shard, row.caused_ns) for row in found.shards if row.rank == 2] == [("a.tar", 0)]


def test_shards_that_all_cost_their_share_accuse_none(tmp_path: Path) -> None:
    found = merge([make_job(tmp_path, reading([*FOUR], {*FOUR}))])
    assert found.verdict.rank == 2
    assert found.verdict.shard is None
    assert "batches read from" not in found.verdict.sentence
    assert found.shards is not None
    assert sum(row.caused_ns for row in found.shards) == pytest.approx(found.ranks[2].caused_ns, rel=1e-6)


def test_the_only_shard_is_not_accused(tmp_path: Path) -> None:
    found = merge([make_job(tmp_path, reading([BAD], {BAD}))])
    assert (found.verdict.rank, found.verdict.shard) == (2, None)


def test_a_batch_whose_shard_is_not_known_costs_none_of_the_known_ones(tmp_path: Path) -> None:
    found = merge([make_job(tmp_path, reading(["a.tar", None], {None}))])
    assert found.verdict.shard is None
    assert found.shards is not None
    assert [(row.shard, row.caused_ns) for row in found.shards if row.rank == 2] == [("a.tar", 0)]


def test_a_rank_that_computes_slowly_accuses_no_shard(tmp_path: Path) -> None:
    slow = [(80 if shard == BAD else 20) * MS for shard in FOUR]
    found = merge([make_job(tmp_path, Job(steps=81, warmup=1, compute={2: slow}, shards={2: FOUR}))])
    assert (found.verdict.rank, found.verdict.cause, found.verdict.shard) == (2, "accelerator", None)
    assert found.shards is not None
    assert {row.caused_ns for row in found.shards} == {0}


def test_ranks_that_read_no_shards_have_none(tmp_path: Path) -> None:
    found = merge([make_job(tmp_path, Job(read={2: 30 * MS}))])
    assert found.shards is None
    assert found.as_dict()["shards"] is None
    assert not any("shard" in line for line in report.lines(found))


def test_older_parts_without_the_column_are_merged(tmp_path: Path) -> None:
    make_job(tmp_path, Job(read={2: 30 * MS}, ended={1: 30}))
    for path in tmp_path.glob("rank-*/batches.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["shard"]), path)
    found = merge([tmp_path])
    assert (found.verdict.rank, found.shards) == (2, None)
