"""How the making of a batch is split, for what was counted and what was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeprof.analyse.ledger.making import Counters, Floats, Stage, Stages, making_of
from pipeprof.analyse.ledger.straggler import Lateness, charge_stragglers
from pipeprof.analyse.telemetry import with_stolen
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import Run, load
from pipeprof.record.writer import TraceWriter
from pipeprof.vocabulary.owners import FIXED

NAN = float("nan")


def column(*values: float) -> Floats:
    return np.array(values, np.float32)


def split(
    wall: float,
    stages: dict[str, Stage],
    cpu: float = NAN,
    runq: float = NAN,
    paged: bool = False,
    network: bool = False,
) -> dict[str, float]:
    """Owners of one batch of `wall` ns, as ns."""
    found = Stages(making=stages)
    counters = Counters(*(np.array([value], np.float32) for value in (wall, cpu, runq)), np.array([paged]))
    making = making_of(found, counters, network)
    owners, shares = making.owners, making.shares()[0]
    assert shares.sum() == pytest.approx(1)
    return {name: float(share * wall) for name, share in zip(owners, shares, strict=True) if share > 1e-6}


def stage(
    wall: float, cpu: float | None = None, runq: float | None = None, queue: float | None = None
) -> Stage:
    columns = [None if value is None else np.array([value], np.float32) for value in (wall, cpu, runq, queue)]
    assert columns[0] is not None
    return Stage(columns[0], *columns[1:])


def test_reads_are_storage_and_their_queueing_is_told() -> None:
    found = split(100, {"read": stage(60, queue=20), "decode": stage(40)}, cpu=40, runq=0)
    assert found == pytest.approx({"storage:device": 40, "storage:queueing": 20, "decode": 40})


def test_reads_over_a_network_are_network() -> None:
    assert split(50, {"read": stage(50)}, cpu=5, runq=0, network=True) == pytest.approx(
        {"storage:network": 50}
    )


def test_waiting_for_a_core_falls_on_what_computes() -> None:
    """60 blocked in the read, so the 20 of run-queue delay lie in the 40 of decoding."""
    found = split(100, {"read": stage(60), "decode": stage(40)}, cpu=20, runq=20)
    assert found == pytest.approx({"storage:device": 60, "decode": 20, "cpu-contention": 20})


def test_unnamed_code_is_blocked_as_far_as_it_blocked() -> None:
    found = split(100, {"getitem": stage(80), "collate": stage(20)}, cpu=50, runq=0)
    assert found == pytest.approx({"blocked": 50, "stage:getitem": 30, "collate": 20})


def test_unnamed_code_without_counters_is_unknown() -> None:
    assert split(100, {"getitem": stage(80)}) == pytest.approx({"unknown": 100})


def test_a_named_stage_keeps_what_it_blocked() -> None:
    found = split(100, {"stage:fetch": stage(90), "collate": stage(10)}, cpu=10, runq=0)
    assert found == pytest.approx({"stage:fetch": 90, "collate": 10})


def test_a_stage_measured_by_itself_takes_no_blocked_time_of_others() -> None:
    stages = {"getitem": stage(50, cpu=50, runq=0), "transform:Blur": stage(50, cpu=0, runq=0)}
    found = split(100, stages, cpu=50, runq=0)
    assert found == pytest.approx({"stage:getitem": 50, "transform:Blur": 50})


def test_page_faults_make_blocked_time_storage() -> None:
    found = split(100, {"getitem": stage(100)}, cpu=30, runq=10, paged=True)
    assert found == pytest.approx({"storage:device": 60, "stage:getitem": 30, "cpu-contention": 10})


def test_what_no_stage_covers_is_unknown() -> None:
    assert split(100, {"decode": stage(70)}, cpu=100, runq=0) == pytest.approx({"decode": 70, "unknown": 30})


def test_stages_that_overlap_in_threads_shrink_to_the_batch() -> None:
    found = split(100, {"decode": stage(150), "transform:Blur": stage(50)}, cpu=100, runq=0)
    assert found == pytest.approx({"decode": 75, "transform:Blur": 25})


def test_the_excess_of_a_straggler_leaves_the_owners_it_came_from() -> None:
    owners = FIXED
    decode, blocked = owners.index("decode"), owners.index("blocked")
    took = np.array([100, 100, 100, 500], np.float32)
    mixes = np.zeros((4, len(owners)), np.float32)
    mixes[:3, decode] = 1
    mixes[3, decode], mixes[3, blocked] = 0.2, 0.8
    late = Lateness(np.array([0, 0, 0, 400]), np.array([0, 0, 0, 450]))
    charge_stragglers(mixes, late, took)
    assert mixes[3, owners.index("straggler")] * 500 == pytest.approx(400)
    assert mixes[3, decode] * 500 == pytest.approx(100)
    assert mixes[0, decode] == 1


def with_readings(directory: Path, readings: list[tuple[int, str, float]]) -> Run:
    writer = TraceWriter(directory / "run", RunMeta())
    columns = dict(zip(("time_ns", "sensor", "value"), zip(*readings, strict=True), strict=True))
    writer.append("telemetry", columns)
    writer.close("complete")
    return load(directory / "run")


def test_what_the_hypervisor_took_is_waiting_for_a_core_and_not_blocked(tmp_path: Path) -> None:
    run = with_readings(
        tmp_path, [(100, "host.steal", 0.0), (200, "cpu.main", 0.7), (300, "host.steal", 0.2)]
    )
    finish, wall = np.array([90, 250, 250, 400]), np.full(4, 200.0)
    cpu, runq = np.array([80.0, 80.0, 150.0, NAN]), np.full(4, 40.0)
    found = with_stolen(run, finish, wall, cpu, runq)
    # a fifth of the time asked for was stolen: 20 ns beside 80, and no more than the batch has left
    assert found[:3].tolist() == pytest.approx([40, 60, 50])
    assert np.isnan(found[3])


def test_a_run_without_the_reading_keeps_its_counts(tmp_path: Path) -> None:
    one = np.array([1.0])
    run = with_readings(tmp_path, [(100, "cpu.main", 0.7)])
    assert with_stolen(run, np.array([90]), 3 * one, one, one) is one


def test_cpu_time_that_was_read_out_for_some_batches_holds_for_all() -> None:
    """Of equal batches one was read out: 6 of the 60 ns of its reads were CPU time, for 3 of 3 requests."""
    stages = Stages(
        {
            "read": Stage(column(60, 60), cpu_ns=column(6, NAN), count=column(3, 3)),
            "decode": Stage(column(40, 40)),
        }
    )
    counters = Counters(column(100, 100), column(46, 46), column(0, 0), np.zeros(2, bool))
    making = making_of(stages, counters, network=False)
    assert making.cpu["storage:device"].tolist() == pytest.approx([6, 6])
    assert making.away["storage:device"].tolist() == pytest.approx([54, 54])
    assert making.cpu["decode"].tolist() == pytest.approx([40, 40])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), paged=st.booleans(), network=st.booleans(), counted=st.booleans())
def test_what_a_batch_consisted_of_sums_to_its_wall(
    seed: int, paged: bool, network: bool, counted: bool
) -> None:
    rng = np.random.default_rng(seed)

    def some(most: float) -> Floats:
        values = (rng.random(5) * most).astype(np.float32)
        return np.where(rng.random(5) < 0.3, np.float32(NAN), values)

    stages = Stages(parts={"first-byte": Stage(np.nan_to_num(some(30)))})
    for name in ("read", "getitem", "decode", "stage:fetch"):
        stages.making[name] = Stage(np.nan_to_num(some(60)), some(60), some(20), some(20), some(99), some(9))
    wall = (rng.random(5) * 200).astype(np.float32)
    cpu = some(100) if counted else np.full(5, NAN, np.float32)
    making = making_of(stages, Counters(wall, cpu, some(50), np.full(5, paged)), network)
    assert making.wall.tolist() == pytest.approx(wall.tolist(), rel=1e-5)
    assert min(float(part.min()) for part in (*making.cpu.values(), *making.away.values())) > -1e-3
    assert making.shares().sum(axis=1).tolist() == pytest.approx([1] * 5, rel=1e-5)
