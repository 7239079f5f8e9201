"""The counts of made runs, against what they were made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.counts import Counts, Spread, count
from tests.factory import MS, US, Plan, make_run


def counted(tmp_path: Path, plan: Plan) -> Counts:
    answer = made(tmp_path, plan)
    assert answer.attribution is not None
    return count(answer.run, answer.attribution)


def made(tmp_path: Path, plan: Plan) -> Analysis:
    return load(make_run(tmp_path / "run", plan))


def test_percentiles_of_stages(tmp_path: Path) -> None:
    walls = [MS] * 95 + [9 * MS] * 5
    plan = Plan(batches=100, warmup=0, stages={"read": walls, "transform:A": MS, "transform:B": 2 * MS})
    stages = counted(tmp_path, plan).stages
    read = stages["read"]
    assert (read.count, read.p50_ns, read.p99_ns, read.max_ns) == (100, MS, 9 * MS, 9 * MS)
    assert stages["transform"].p50_ns == 3 * MS
    assert "decode" not in stages


@pytest.mark.parametrize(
    ("values", "known"),
    [(9, {"p50"}), (20, {"p50", "p95"}), (99, {"p50", "p95"}), (100, {"p50", "p95", "p99"})],
)
def test_of_few_values_none_is_one_in_twenty(values: int, known: set[str]) -> None:
    assert Spread(values, 2.0, 1, 5, 6, 7).quantiles().keys() == known


def test_waits_without_workers_are_the_making(tmp_path: Path) -> None:
    found = counted(tmp_path, Plan(workers=0, stages={"decode": 7 * MS}))
    assert found.wait is not None
    assert found.wait.p50_ns == 7 * MS
    assert found.transfer is None
    assert found.depth is None


def test_the_queue_is_empty_where_workers_are_slow(tmp_path: Path) -> None:
    slow = counted(tmp_path / "slow", Plan(workers=1, stages={"decode": 90 * MS}, transfer=0)).depth
    quick = counted(tmp_path / "quick", Plan(workers=4, stages={"decode": MS}, transfer=0)).depth
    assert slow is not None
    assert quick is not None
    assert slow.empty_share > 0.99
    assert quick.empty_share < 0.1  # it runs dry at the end
    assert quick.mean == pytest.approx(7.5, abs=0.5)
    assert quick.next_ready_share > 0.9


def test_ready_and_useless_behind_a_late_one(tmp_path: Path) -> None:
    stages = {"decode": [200 * MS] + [10 * MS] * 7}
    found = counted(tmp_path, Plan(workers=4, batches=80, stages=stages, compute=MS))
    assert found.head_of_line_ns is not None
    assert found.head_of_line_ns > 80 * MS
    assert found.depth is not None
    assert found.depth.next_ready_share < 1 - found.depth.empty_share


def test_workers_share_the_batches(tmp_path: Path) -> None:
    workers = counted(tmp_path, Plan(workers=3, batches=60, warmup=0, stages={"decode": 90 * MS})).workers
    assert [share.worker for share in workers] == [0, 1, 2]
    assert all(share.busy_share > 0.9 for share in workers)
    assert sum(share.batches for share in workers) in (59, 60)


def test_the_first_batch_of_each_epoch(tmp_path: Path) -> None:
    plan = Plan(epochs=3, startup_ns=400 * MS, stages={"decode": 30 * MS}, transfer=US)
    first = counted(tmp_path, plan).first_batch_ns
    assert first == {(0, epoch): 430 * MS + US for epoch in range(3)}


def test_drift_is_seen_and_absence_of_it_too(tmp_path: Path) -> None:
    rising = [round(20 * MS * (1 + k / 200)) for k in range(200)]
    up = counted(tmp_path / "up", Plan(batches=200, workers=0, stages={"decode": rising}, compute=MS)).drift
    flat = counted(tmp_path / "flat", Plan(batches=200, workers=0, jitter=0.1, compute=MS)).drift
    assert up is not None
    assert flat is not None
    assert up.significant
    assert up.share == pytest.approx(0.65, abs=0.05)
    assert not flat.significant


def test_counts_of_the_loop_itself(tmp_path: Path) -> None:
    found = counted(tmp_path, Plan())
    assert (found.steps, found.ready_known, found.inline) == (115, 115, 0)
    assert found.startup_ns == {(0, 0): 50 * MS}
    assert counted(tmp_path / "inline", Plan(workers=0)).inline == 115
