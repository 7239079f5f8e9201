"""Doubts about verdicts, each beside the runs that must not have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.doubts import MAPPED, doubts_about
from pipeprof.record.schema import TABLES
from tests.factory import MS, Counted, Plan, loader_meta, make_run
from tests.unprobed_runs import with_column

SEEN = {"reads": None, "device_bytes": 1 << 30}
"""Bytes came from the device, and no read of Python's brought them: they were mapped."""


def answered(tmp_path: Path, stages: dict[str, int]) -> Analysis:
    return load(make_run(tmp_path / "run", Plan(workers=1, batches=60, stages=stages, compute=5 * MS)))


def named(found: Analysis, **changes: Any) -> list[str]:
    assert found.attribution is not None and found.facts is not None
    return [one.name for one in doubts_about(found.run, found.attribution, replace(found.facts, **changes))]


def test_unnamed_code_beside_a_busy_disk_may_be_the_disk(tmp_path: Path) -> None:
    found = answered(tmp_path, {"getitem": 60 * MS, "read": 45 * MS})
    assert found.attribution is not None and found.facts is not None
    ledger = found.attribution.whole.ledger_ns
    assert ledger["storage"] > MAPPED * ledger["stage:getitem"]
    doubts = doubts_about(found.run, found.attribution, replace(found.facts, **SEEN))
    (mapped,) = (one for one in doubts if one.name == "mapped-reads")
    assert mapped.decisive
    assert "memory map" in mapped.problem and "pipeprof.stage()" in mapped.remedy


@pytest.mark.parametrize(("cpu_per_fault_ns", "doubted"), [(30_000, True), (2_500_000, False), (None, False)])
def test_code_that_mostly_faults_may_be_the_disk_however_quick_that_is(
    tmp_path: Path, cpu_per_fault_ns: int | None, doubted: bool
) -> None:
    found = answered(tmp_path, {"getitem": 60 * MS, "read": 20 * MS})
    assert ("mapped-reads" in named(found, **SEEN, cpu_per_fault_ns=cpu_per_fault_ns)) == doubted


@pytest.mark.parametrize(("first", "every"), [(0, 2), (50, 1)])
def test_the_cpu_time_of_a_fault_is_that_of_all_batches_over_all_faults(
    tmp_path: Path, first: int, every: int
) -> None:
    """Those without a fault too: where faults are rare, code that makes batches is no disk."""
    run = make_run(tmp_path / "run", Plan(workers=1, batches=60, stages={"getitem": 8 * MS}))
    batches = pq.read_table(run / "batches.parquet")
    faults = [4 if seq >= first and seq % every == 0 else 0 for seq in range(len(batches))]
    pq.write_table(with_column(batches, "batches", "major_faults", faults), run / "batches.parquet")
    facts = load(run).facts
    assert facts is not None and facts.cpu_per_fault_ns is not None
    all_cpu_ns = sum(batches["cpu_ns"].to_pylist())
    assert facts.cpu_per_fault_ns == pytest.approx(all_cpu_ns / sum(faults), rel=0.1)


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": 100, "device_bytes": 1 << 30}),
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": None, "device_bytes": 0}),
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": None, "device_bytes": None}),
        ({"getitem": 60 * MS, "read": 20 * MS}, SEEN),
        ({"getitem": 45 * MS, "read": 60 * MS}, SEEN),
        ({"decode": 60 * MS, "read": 45 * MS}, SEEN),
        ({"stage:parse": 60 * MS, "read": 45 * MS}, SEEN),
    ],
    ids=[
        "reads were seen",
        "all came from memory",
        "the device was not observed",
        "the disk is far smaller",
        "the disk is the larger in any case",
        "the code is known to decode",
        "the code is marked",
    ],
)
def test_it_is_not_doubted_where(tmp_path: Path, stages: dict[str, int], changes: dict[str, Any]) -> None:
    assert "mapped-reads" not in named(answered(tmp_path, stages), **changes)


def test_without_a_stall_there_is_nothing_to_blame(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=60, stages={"getitem": MS}, compute=80 * MS)))
    assert "mapped-reads" not in named(found, **SEEN)


COLD = {"tier": "ssd", "emulated_storage": False, "cache": "cold", "read_bytes": 1000}


def reading(tmp_path: Path, **storage: Any) -> Analysis:
    """A run that waits for reads, and what is said of its storage."""
    plan = Plan(stages={"read": 60 * MS}, compute=5 * MS)
    return load(make_run(tmp_path / "run", plan, storage={"tier": "ssd", **storage}))


@pytest.mark.parametrize(
    ("told", "changes", "doubted"),
    [
        ({}, {"device_bytes": 1200}, False),
        ({}, {"device_bytes": 960}, False),
        ({}, {"device_bytes": 900}, True),
        ({"resident_share_before": 0.0}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 0.02}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 0.2}, {"device_bytes": 1200}, True),
        ({"resident_share_before": 0.2}, {"device_bytes": None}, True),
        ({"resident_share_before": 0.0}, {"device_bytes": None}, False),
        ({"resident_share_before": None}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 1.0}, {"device_bytes": 0, "cache": "warm"}, False),
        ({}, {"device_bytes": 550, "cache_bytes": 4000, "data_bytes": 10_000}, True),
        ({}, {"device_bytes": 650, "cache_bytes": 4000, "data_bytes": 10_000}, False),
        ({}, {"device_bytes": 0, "cache_bytes": 4000, "data_bytes": 4000}, False),
        ({}, {"device_bytes": 0, "emulated_storage": True}, False),
    ],
)
def test_a_cold_run_that_was_not(
    tmp_path: Path, told: dict[str, Any], changes: dict[str, Any], doubted: bool
) -> None:
    found = reading(tmp_path, **told)
    assert ("page-cache" in named(found, **{"cache_bytes": 0, **COLD, **changes})) is doubted


@pytest.mark.parametrize("limited", [True, False])
def test_an_emulated_device_that_could_not_keep_its_pace_is_named(tmp_path: Path, limited: bool) -> None:
    emulator = {"served_ns": 900, "lost_ns": 100, "limited_by_emulator": limited}
    found = reading(tmp_path, emulated=True, emulator=emulator, name="nvme-gen3")
    assert found.attribution is not None and found.facts is not None
    said = {one.name: one for one in doubts_about(found.run, found.attribution, found.facts)}
    assert ("emulator-limited" in said) is limited
    if limited:
        assert "nvme-gen3 was slower than its model: 10% of the time" in said["emulator-limited"].problem
        assert not said["emulator-limited"].decisive


def add_event(directory: Path, event: dict[str, Any]) -> None:
    path, schema = directory / "events.parquet", TABLES["events"]
    pq.write_table(pa.Table.from_pylist([*pq.read_table(path).to_pylist(), event], schema), path)


def test_a_standstill_is_left_out_and_told(tmp_path: Path) -> None:
    """As after SIGSTOP: 5 s in the middle of a run that would else be charged to whatever was under way."""
    plain = load(make_run(tmp_path / "plain", Plan(batches=60, workers=2)))
    run = make_run(tmp_path / "stopped", Plan(batches=60, workers=2))
    steps = plain.timeline
    end = int(steps.take_ns[40])
    start = int(steps.take_ns[38])
    add_event(run, {"time_ns": end, "kind": "suspended", "detail": str(end - start)})
    stopped = load(run)
    assert stopped.ledger is not None and plain.ledger is not None
    gone = plain.ledger.window.wall_ns - stopped.ledger.window.wall_ns
    assert gone == end - start
    assert sum(stopped.ledger.ledger_ns.values()) == stopped.ledger.window.wall_ns
    assert [doubt.name for doubt in stopped.verdict.doubts if doubt.name == "suspended"]


def test_standing_still_is_no_waiting_for_data(tmp_path: Path) -> None:
    """A wait in which the process stood still lasts as long as without."""
    plan = Plan(batches=60, workers=1, stages={"decode": 60 * MS}, compute=5 * MS)
    steps = load(make_run(tmp_path / "plain", plan)).timeline
    run = make_run(tmp_path / "stopped", plan)
    start, end = int(steps.request_ns[40]) + 1 * MS, int(steps.take_ns[40]) - 3 * MS
    add_event(run, {"time_ns": end, "kind": "suspended", "detail": str(end - start)})
    waits = load(run).timeline.wait_ns
    assert waits[40] == 4 * MS < steps.wait_ns[40]
    assert np.array_equal(np.delete(waits, 40), np.delete(steps.wait_ns, 40))


@pytest.mark.parametrize(
    ("trainer", "decisive"),
    [("MainThread", True), (None, False)],
    ids=["another trains", "who trains is unseen"],
)
def test_batches_that_another_thread_takes(tmp_path: Path, trainer: str | None, decisive: bool) -> None:
    happened = [(0, "consumer_thread", "prefetcher"), (1, "trainer_thread", trainer)]
    plan = Plan(workers=1, batches=60, stages={"decode": 60 * MS}, compute=5 * MS)
    run = make_run(
        tmp_path / "run", replace(plan, happened=[each[1:] for each in happened if each[2] is not None])
    )
    verdict = load(run).verdict
    (doubt,) = (one for one in verdict.doubts if one.name == "thread-consumer")
    assert "prefetcher" in doubt.problem and "profile" in doubt.remedy
    if decisive:
        assert (verdict.cause, verdict.detail) == ("inconclusive", "thread-consumer")
        assert verdict.mechanism == "thread-consumer" and verdict.fix == "none"
    else:
        assert (verdict.cause, verdict.mechanism) == ("decode", None)


def test_the_main_thread_takes_its_own_batches(tmp_path: Path) -> None:
    assert "thread-consumer" not in named(answered(tmp_path, {"decode": 60 * MS}))


def remembered(grown: int, left: int, workers: int = 2) -> tuple[Counted, ...]:
    """The workers' own memory at the first and the last look, and what was left for all at both."""
    rows = []
    for worker in range(workers):
        for own, free in ((100 << 20, left), ((100 << 20) + grown, left - workers * grown)):
            rows += [
                Counted("level.own_bytes", own, worker),
                Counted("level.memory_left_bytes", free, worker),
            ]
    return tuple(rows)


@pytest.mark.parametrize(
    ("grown", "samples", "warned"),
    [
        (4 << 30, 60 * 32, True),
        (3 << 30, 60 * 32, False),
        (400 << 20, 20 * 60 * 32, True),
        (10 << 20, 20 * 60 * 32, False),
    ],
    ids=["80 % of what was left", "less", "in the beginning of a long epoch", "a little"],
)
def test_memory_that_grows_is_warned_of_before_it_is_full(
    tmp_path: Path, grown: int, samples: int, warned: bool
) -> None:
    plan = Plan(batches=60, stages={"decode": 90 * MS}, counters=remembered(grown, 10 << 30))
    run = make_run(tmp_path / "run", plan, loaders=[loader_meta(plan, samples=samples)])
    verdict = load(run).verdict
    doubts = [one for one in verdict.doubts if one.name == "memory-growth"]
    assert bool(doubts) == warned
    assert (verdict.cause, verdict.mechanism) == ("decode", None), "it takes no time"
    if warned:
        assert "arrays" in doubts[0].remedy and "GB that were left" in doubts[0].problem


@pytest.mark.parametrize(("used", "warned"), [(820, True), (800, True), (790, False), (0, False)])
def test_shared_memory_that_is_nearly_full_is_warned_of(tmp_path: Path, used: int, warned: bool) -> None:
    counters = [
        Counted(f"level.shared_memory{what}", value << 20, worker)
        for worker in (-1, 0, 1)
        for what, value in (("_used_bytes", used if worker == 1 else used // 2), ("_bytes", 1000))
    ]
    plan = Plan(batches=60, stages={"decode": 60 * MS}, counters=counters)
    doubts = [
        one for one in load(make_run(tmp_path / "run", plan)).verdict.doubts if one.name == "shared-memory"
    ]
    assert bool(doubts) == warned
    if warned:
        assert not doubts[0].decisive and "of its 1.05 GB" in doubts[0].problem
        assert "--shm-size" in doubts[0].remedy


FROM_WORKER = (
    "ValueError: Caught ValueError in DataLoader worker process 0.\n"
    "Original Traceback (most recent call last):\n  File ...\nValueError: truncated picture\n"
)


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        ("failed", FROM_WORKER, "the run failed (ValueError: truncated picture): its end is missing"),
        ("failed", "KeyError: 'x'\nmore of it", "the run failed (KeyError: 'x'): its end is missing"),
        ("failed", "A" * 500, f"the run failed ({'A' * 160}): its end is missing"),
        ("interrupted", None, "the run was interrupted: its end is missing"),
    ],
)
def test_a_failed_run_is_told_with_its_error(
    tmp_path: Path, status: str, error: str | None, said: str
) -> None:
    plan = Plan(batches=60, stages={"getitem": MS})
    found = load(make_run(tmp_path / "run", plan, status=status, error=error))
    assert said in [doubt.problem for doubt in found.verdict.doubts]
