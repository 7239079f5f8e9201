"""The law: a run's ledger and that of its replay agree, owner by owner.

A replay simulates a run under its own knobs from its own demands. Walked backwards it is charged with what
the run itself was: within three points of the wall, or the interval of the measured or the predicted share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from pipeprof.analyse.ledger.attribution import Attribution, attribute
from pipeprof.analyse.rates import share_interval
from pipeprof.devices import STORAGE
from pipeprof.measure.bench.run import run as bench
from pipeprof.record.reader import Run, load
from pipeprof.record.writer import TraceWriter
from pipeprof.scenario import Scenario
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import Prediction, replay
from pipeprof.vocabulary import owners
from tests.analyse.ledger.test_walk import changed, locked_out
from tests.factory import MS, Plan
from tests.factory import walk as made
from tests.record.test_old_runs import OLD_RUNS
from tests.simulate.common import HDD, demands_from, hdd_plan, recorded
from tests.timing import Timing

POINTS: Final = 0.03
GPU: Final = {"gpu_names": ["made"], "usable_cores": 8, "cpu_count": 8}
STAGES: Final = {
    "read": 8 * MS,
    "decode": 40 * MS,
    "transform:Crop": 9 * MS,
    "getitem": 3 * MS,
    "collate": 4 * MS,
}
LATE: Final = {**STAGES, "decode": [300 * MS, *[20 * MS] * 15]}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "synchronises": {"synchronises": True},
    "fast accelerator": {"compute": 2 * MS},
    "pinned": {"pin_memory": True, "pin": 3 * MS},
    "pin thread bound": {"pin_memory": True, "pin": 30 * MS},
    "epochs": {"epochs": 4, "batches": 30},
    "epochs, fast accelerator": {"epochs": 4, "batches": 30, "compute": 2 * MS},
    "uneven batches": {"jitter": 0.4, "compute": 2 * MS},
    "deep queue": {"queue_depth": 4, "compute": 2 * MS},
    "stragglers": {"stages": LATE, "compute": 8 * MS},
    "slow copies": {"copy": 30 * MS, "compute": 10 * MS},
    "slow hand-over": {"transfer": 20 * MS, "compute": 2 * MS},
    "slow loop": {"main": 30 * MS},
    "uneven steps": {"compute": [2 * MS, 60 * MS]},
    "no device clock": {"accelerator": "none"},
    "no device clock, slow loop": {"accelerator": "none", "main": 30 * MS},
}


def outside(run: Run) -> dict[str, tuple[float, float]]:
    """Measured and replayed share of the owners that the law does not hold for."""
    found = attribute(run)
    assert found is not None
    if len(found.shapes) > 1:  # a replay is of one loader
        found = attribute(run, loader=found.main_loader)
        assert found is not None
    replayed = replay(open_run(run, found))
    measured, played = (shares(found.whole.ledger_ns), shares(replayed.ledger.ledger_ns))
    return {
        owner: (share, played.get(owner, 0.0))
        for owner in {*measured, *played}
        if not agree(found, replayed, owner, share := measured.get(owner, 0.0), played.get(owner, 0.0))
    }


def shares(ledger_ns: dict[str, int]) -> dict[str, float]:
    return {owner: ns / sum(ledger_ns.values()) for owner, ns in ledger_ns.items()}


def agree(found: Attribution, replayed: Prediction, owner: str, measured: float, played: float) -> bool:
    if abs(measured - played) <= POINTS:
        return True
    own = share_interval(found, lambda word: owners.merged(word) == owner)
    predicted = replayed.shares.get(owner)
    within = own is not None and own[0] <= played <= own[1]
    return within or (predicted is not None and predicted.low <= measured <= predicted.high)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_made_run_and_its_replay_owe_the_same(tmp_path: Path, shape: str, workers: int) -> None:
    """The factory gives each worker storage of its own, which no model does: the data lies in memory."""
    changes = {**SHAPES[shape]}
    if workers == 0:
        changes = {name: value for name, value in changes.items() if name not in ("pin", "transfer")}
    plan = Plan(**{"batches": 100, "stages": STAGES, "workers": workers, **changes})
    assert outside(recorded(tmp_path / "run", plan, machine=GPU)) == {}


def test_one_reader_and_its_disk_owe_the_same(tmp_path: Path) -> None:
    assert outside(recorded(tmp_path / "run", hdd_plan(), HDD)) == {}


DISKS: Final = {"hdd": HDD, "ssd": STORAGE["sata-ssd"], "nfs": STORAGE["nfs-1g"]}
ON_ONE_DISK: Final[dict[str, dict[str, Any]]] = {
    "disk bound": {"compute": 2 * MS},
    "balanced": {"stages": {"decode": 250 * MS, "collate": 4 * MS}},
    "work bound": {"stages": {"decode": 900 * MS, "collate": 4 * MS}},
    "accelerator bound": {"compute": 600 * MS},
    "uneven work": {"stages": {"decode": [200 * MS, 600 * MS, 50 * MS], "collate": 4 * MS}},
    "deep prefetch": {"prefetch": 6, "compute": 2 * MS},
}


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("shape", ON_ONE_DISK)
@pytest.mark.parametrize("disk", DISKS)
def test_workers_on_one_disk_and_their_replay_owe_the_same(
    tmp_path: Path, disk: str, shape: str, workers: int
) -> None:
    changes = {"stages": {"decode": 40 * MS, "collate": 4 * MS}, **ON_ONE_DISK[shape]}
    plan = Plan(batches=60, workers=workers, disk=DISKS[disk], **changes)
    run = recorded(tmp_path / "run", plan, DISKS[disk], machine=GPU)
    assert outside(run) == {}


def test_storage_without_a_model_owes_what_it_was_seen_to(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Plan(workers=2, stages=STAGES, batches=100), storage=None)
    assert outside(run) == {}


def with_device_waits(run: Run, plan: Plan) -> Run:
    """The run as the wrapper sees somebody's CUDA loop: of its device only the waits are known."""
    times = made(plan)
    ended = [times.request[0], *times.compute_end[:-1]]
    begun = [max(*at) for at in zip(times.request, ended, strict=True)]
    waits: list[int | None] = [max(0, taken - at) for taken, at in zip(times.take, begun, strict=True)]
    return changed(
        changed(run, "steps", "device_wait_ns", waits), "steps", "launch_ns", [None] * plan.batches
    )


BEHIND: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "loader bound": {"compute": 2 * MS},
    "slow loop": {"main": 30 * MS, "compute": 50 * MS},
    "deep queue": {"queue_depth": 8},
    "uneven": {"queue_depth": 8, "compute": [5 * MS, 60 * MS], "jitter": 0.3},
    "synchronises": {"synchronises": True},
}


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("shape", BEHIND)
def test_a_device_that_masks_waits_masks_them_in_the_replay(tmp_path: Path, shape: str, workers: int) -> None:
    plan = Plan(batches=100, stages=STAGES, workers=workers, accelerator="none", **BEHIND[shape])
    assert outside(with_device_waits(recorded(tmp_path / "run", plan), plan)) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_marked_in_the_loop_is_its_own_in_the_replay(tmp_path: Path, workers: int) -> None:
    plan = Plan(batches=100, stages=STAGES, workers=workers, accelerator="none", main=30 * MS)
    run = recorded(tmp_path / "run", plan)
    rows = {"loader": [0], "epoch": [0], "scope": [1], "stage": ["stage:log"], "wall_ns": [20 * MS]}
    writer = TraceWriter(tmp_path / "marked", run.meta)
    for table in ("steps", "batches", "events", "stages"):
        writer.append(table, run.table(table).to_pydict())
    marks = {name: values * plan.batches for name, values in rows.items()}
    writer.append("stages", {**marks, "seq": list(range(plan.batches))})
    writer.close("complete")
    assert outside(load(tmp_path / "marked")) == {}


@pytest.mark.parametrize("late", [MS // 2, -10 * MS])
def test_a_batch_behind_its_workers_lock_owes_the_making_of_the_next(tmp_path: Path, late: int) -> None:
    assert outside(locked_out(tmp_path / "run", seen=True, late=late)) == {}


LET_GO: Final = {"at its end": (MS // 2, 30 * MS), "after a call": (-10 * MS, 20 * MS)}


@pytest.mark.parametrize(("late", "way"), LET_GO.values(), ids=LET_GO)
def test_a_batch_waits_for_its_workers_lock_as_long_as_it_did(tmp_path: Path, late: int, way: int) -> None:
    """Until the next one is made, or until one native call of that making is over: no longer."""
    run = locked_out(tmp_path / "run", late=late)
    demands = demands_from(run)
    replayed = replay(demands).timeline
    rows = np.flatnonzero(replayed.measured)[:-4]  # behind the last ones nothing was made
    took = replayed.available_ns[rows] - replayed.finish_ns[rows]
    assert np.median(took) == pytest.approx(way, rel=0.05)


OLD: Final = {
    "bench": "bench",
    "two loaders without workers": "trace_without_workers",
    "one of two ranks": "job_of_two_ranks/rank-0",
    "the other rank": "job_of_two_ranks/rank-1",
}


@pytest.mark.parametrize("name", OLD)
def test_a_run_of_an_earlier_version_and_its_replay_owe_the_same(name: str) -> None:
    assert outside(load(OLD_RUNS / OLD[name])) == {}


REAL: Final[dict[str, dict[str, Any]]] = {
    "disk, inline": {"storage": {"tier": "hdd"}, "loader": {"batch_size": 4, "workers": 0}},
    "disk, workers": {"storage": {"tier": "hdd"}, "loader": {"batch_size": 4, "workers": 2}},
    "memory, one worker": {"storage": {"tier": "ram"}, "loader": {"batch_size": 16, "workers": 1}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_run_and_its_replay_owe_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, timing: Timing
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    scenario = {
        "name": "short",
        "data": {"format": "tensor_files", "samples": 512, "sample_bytes": 60_000},
        "accelerator": {"kind": "emulated", "step_ms": 20},
        "run": {"steps": 60},
        **REAL[name],
    }
    run = load(bench(Scenario.model_validate(scenario), tmp_path / "run"))
    with timing.compared():
        assert outside(run) == {}
