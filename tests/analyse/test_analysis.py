"""The dictionary of `report --json`, doubts, and runs that are not one loader on one device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, analyse, load
from pipeprof.analyse.ledger import assign as day
from pipeprof.analyse.ledger import tiling, walk
from pipeprof.analyse.rates import batch_means
from pipeprof.analyse.verdict import Verdict
from pipeprof.errors import TraceError
from pipeprof.record.reader import Run
from pipeprof.record.reader import load as load_run
from pipeprof.record.writer import TraceWriter
from pipeprof.timeline import ints
from tests.analyse.ledger.test_walk import changed, sums_exactly, windows
from tests.factory import MS, ORIGIN_NS, Plan, begin, make_run

KEYS = [
    "schema", "status", "verdict", "device", "page_cache",
    "wall_ns", "ledger_ns", "path_ns", "utilization", "utilization_kind",
    "throughput_samples_per_s", "steps", "emulated", "not_observed", "outside", "loader", "other_loaders",
    "transfer",
    "own_cost",
]  # fmt: skip
VERDICT_KEYS = [
    "band", "cause", "detail", "mechanism", "mechanism_share", "evidence", "hot", "fix", "fix_basis",
    "warning", "sentence", "stall_share", "stall_interval", "doubts",
]  # fmt: skip


def names(found: Analysis) -> list[str]:
    return [doubt.name for doubt in found.verdict.doubts]


def test_the_dictionary_has_its_keys(tmp_path: Path) -> None:
    told = json.loads(json.dumps(load(make_run(tmp_path / "run")).verdict.as_dict()))
    assert list(told) == KEYS
    assert list(told["verdict"]) == VERDICT_KEYS
    assert told["schema"] == 1
    assert told["steps"] == 115
    assert sum(told["ledger_ns"].values()) == told["wall_ns"] == sum(told["path_ns"].values())
    assert told["utilization_kind"] == "emulated"
    assert told["emulated"] == ["storage", "accelerator"]


def test_utilisation_is_the_sum_of_the_steps_over_the_wall(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", Plan(stages={"decode": 70 * MS})))
    steps = run.table("steps")
    busy = (ints(steps["compute_end_ns"]) - ints(steps["compute_start_ns"]))[5:].sum()
    told = analyse(run).verdict.as_dict()
    assert told["utilization"] == pytest.approx(busy / told["wall_ns"], abs=1e-9)


def test_without_a_device_the_loop_body_counts_less_what_was_marked(tmp_path: Path) -> None:
    plan = Plan(workers=0, accelerator="none", stages={"decode": 30 * MS}, compute=0, copy=0, main=70 * MS)
    run = load_run(make_run(tmp_path / "run", plan))
    assert analyse(run).verdict.as_dict()["utilization"] == pytest.approx(0.7, abs=0.02)
    stages = run.table("stages").to_pydict()
    n = plan.batches
    marked = {
        "loader": [0] * n, "epoch": [0] * n, "seq": list(range(n)),
        "scope": [1] * n, "stage": ["stage:log"] * n, "wall_ns": [20 * MS] * n,
    }  # fmt: skip
    writer = TraceWriter(tmp_path / "marked", run.meta)
    for table in ("steps", "batches", "events"):
        writer.append(table, run.table(table).to_pydict())
    writer.append("stages", stages)
    writer.append("stages", marked)
    writer.close("complete")
    found = load(tmp_path / "marked")
    assert found.ledger is not None
    told = found.verdict.as_dict()
    assert told["utilization_kind"] == "loop-body"
    assert told["utilization"] == pytest.approx(0.5, abs=0.02)
    assert found.ledger.ledger_ns["main"] / told["wall_ns"] == pytest.approx(0.2, abs=0.02)


def test_between_epochs_the_loop_computes_nothing(tmp_path: Path) -> None:
    """100 ms of start-up beside 10 steps of 50 ms in each of 11 measured epochs; no device was observed."""
    plan = Plan(
        batches=10,
        epochs=12,
        warmup=10,  # the first epoch
        workers=1,
        accelerator="none",
        stages={"decode": MS},
        startup_ns=100 * MS,
        compute=0,
        copy=0,
        main=50 * MS,
    )
    found = load(make_run(tmp_path / "run", plan))
    assert found.ledger is not None
    assert found.ledger.ledger_ns["startup"] == pytest.approx(11 * 100 * MS, rel=0.01)
    assert found.verdict.cause == "startup"


def test_one_start_up_is_no_part_of_the_rate(tmp_path: Path) -> None:
    """Workers need 5 s to start before 32 steps of 20 ms: they are not what a longer run waits for."""
    plan = Plan(batches=32, warmup=0, workers=4, stages={"decode": 10 * MS}, startup_ns=5_000 * MS)
    found = load(make_run(tmp_path / "run", plan))
    assert found.ledger is not None
    assert "startup" not in found.ledger.ledger_ns
    measured = found.verdict.measured
    assert measured.outside is not None and measured.outside.startup_ns == 5_000 * MS
    assert measured.throughput_samples_per_s == pytest.approx(32 / 0.02, rel=0.05)
    assert found.verdict.band == "not"


def test_events_that_do_not_fit_the_steps_are_a_doubt(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=30))
    run = load_run(path)
    times = [at + 400 * MS * (kind == "workers_ready") for at, kind in _times(run)]
    found = analyse(changed(run, "events", "time_ns", times))
    assert "record" in names(found)
    assert "record" not in names(load(path))


def _times(run: Run) -> list[tuple[int, str]]:
    events = run.table("events")
    return list(zip(events["time_ns"].to_pylist(), events["kind"].to_pylist(), strict=True))


def test_that_two_loaders_differ_is_no_noise(tmp_path: Path) -> None:
    """Training that never waits and an evaluation that always does, each as regular as clockwork."""
    plan = Plan(batches=60, epochs=3, workers=4, stages={"decode": 2 * MS})
    after = Plan(batches=20, warmup=0, workers=1, stages={"decode": 80 * MS})
    found = load(make_run(tmp_path / "run", plan, after=after))
    low, high = found.verdict.stall_interval or (0.0, 1.0)
    assert found.verdict.stall_share is not None
    assert low < found.verdict.stall_share < high < low + 0.1
    assert found.verdict.cause == "decode"


def test_a_wait_measured_on_the_device_is_the_stall(tmp_path: Path) -> None:
    """The loop waits 30 ms a step, of which the device saw 10."""
    plan = Plan(workers=0, accelerator="none", stages={"decode": 30 * MS}, compute=0, copy=0, main=70 * MS)
    run = load_run(make_run(tmp_path / "run", plan))
    found = analyse(changed(run, "steps", "device_wait_ns", [10 * MS] * plan.batches))
    told = found.verdict.as_dict()
    assert told["utilization_kind"] == "device-events"
    assert found.verdict.stall_share == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cuda", "device-events"),  # as older runs have it
        ("rocm", "device-events"),
        ("npu", "device-events"),
        ("cpu", "loop-body"),
    ],
)
def test_a_device_of_any_kind_is_told_by_its_events(tmp_path: Path, kind: str, expected: str) -> None:
    facts = {"kind": kind, "name": "made", "emulated": False}
    run = load_run(make_run(tmp_path / "run", Plan(batches=40), accelerator=facts))
    assert analyse(run).verdict.as_dict()["utilization_kind"] == expected


def test_epochs_and_moving_windows_sum_to_their_walls(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=30, epochs=4, startup_ns=90 * MS))).attribution
    assert found is not None
    epochs = found.epochs()
    assert [one.epoch for one, _ in epochs] == [0, 1, 2, 3]
    assert sum(ledger.window.wall_ns for _, ledger in epochs) == found.window.wall_ns
    for ledger in [*(ledger for _, ledger in epochs), *windows(found, 70 * MS, 33 * MS)]:
        assert sum(ledger.ledger_ns.values()) == sum(ledger.path_ns.values()) == ledger.window.wall_ns


def test_a_long_walk_is_the_same_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(tmp_path / "run", Plan(workers=3, stages={"read": 70 * MS}, jitter=0.3))
    whole = load(directory)
    monkeypatch.setattr(walk, "CHUNK", 3)
    monkeypatch.setattr(day, "CHUNK", 4)
    monkeypatch.setattr(tiling, "CHUNK", 5)
    cut = load(directory)
    assert cut.ledger is not None and whole.ledger is not None
    assert (cut.ledger.ledger_ns, cut.ledger.path_ns) == (whole.ledger.ledger_ns, whole.ledger.path_ns)


def test_a_validation_loader_inside_the_training_loop(tmp_path: Path) -> None:
    """Between training steps a slow loader without workers is run through, again and again."""
    order = ([0] * 5 + [1] * 4) * 12
    rows, at = [], ORIGIN_NS
    for step, loader in enumerate(order):
        wait = MS if loader == 0 else 60 * MS
        rows.append((step, loader, order[:step].count(loader), at, at + wait))
        at += wait + 10 * MS
    step, loader, seq, request, took = (list(column) for column in zip(*rows, strict=True))
    keys = {"loader": loader, "seq": seq, "epoch": [0] * len(rows)}
    worker = [0 if one == 0 else -1 for one in loader]
    # The worker makes each batch as soon as the one two places before it was taken: it is always ready.
    train = [end for end, one in zip(took, loader, strict=True) if one == 0]
    asked = iter([at - 100 * MS for at in train[:2]] + train[:-2])
    start = [next(asked) if one == 0 else begin for begin, one in zip(request, loader, strict=True)]
    making = [5 * MS if one == 0 else 60 * MS - 1000 for one in loader]
    finish = [begin + wall for begin, wall in zip(start, making, strict=True)]
    writer = begin(tmp_path / "run", {"loaders": [{"id": 0, "workers": 1}, {"id": 1, "workers": 0}]})
    writer.append("steps", {**keys, "step": step, "request_ns": request, "take_ns": took})
    made = {"worker": worker, "dispatch_ns": start, "start_ns": start, "finish_ns": finish}
    writer.append("batches", {**keys, **made})
    writer.append("stages", {**keys, "stage": ["decode"] * len(rows), "wall_ns": making})
    writer.close("complete")
    run = load_run(tmp_path / "run")
    sums_exactly(run)
    found = analyse(run)
    assert found.verdict.cause == "decode"
    assert found.facts is not None
    assert found.facts.workers == 0  # the loader that was waited for


def test_a_cold_run_out_of_the_page_cache_is_inconclusive(tmp_path: Path) -> None:
    storage = {"tier": "ssd", "emulated": False, "cache": "cold", "path": "/data"}
    run = load_run(make_run(tmp_path / "run", Plan(stages={"read": 90 * MS}), storage=storage))
    cold = analyse(changed(run, "batches", "device_bytes", [32 * 110_000] * 120))
    assert cold.verdict.cause == "storage-latency"
    warm = analyse(changed(run, "batches", "device_bytes", [0] * 120))
    assert (warm.verdict.cause, names(warm)[0]) == ("inconclusive", "page-cache")
    assert "cold" in warm.verdict.sentence


def test_clock_trouble_is_inconclusive(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", Plan(stages={"decode": 90 * MS})))
    ahead = [end + 10**9 for end in run.table("batches")["finish_ns"].to_pylist()]
    assert names(analyse(changed(run, "batches", "finish_ns", ahead)))[0] == "clock"


def test_an_interval_wider_than_its_band_is_inconclusive(tmp_path: Path) -> None:
    """Two long waits in a run that is otherwise healthy."""
    late = [MS] * 60
    late[20], late[40] = 900 * MS, 900 * MS
    plan = Plan(batches=60, workers=1, prefetch=1, stages={"decode": late}, compute=100 * MS)
    found = load(make_run(tmp_path / "run", plan))
    assert found.verdict.cause == "inconclusive"
    assert "wide-interval" in names(found)


def test_workers_that_were_not_seen_leave_it_unknown(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", Plan(stages={"decode": 90 * MS})))
    run._tables["batches"] = run.table("batches").slice(0, 0)
    found = analyse(run)
    assert (found.verdict.cause, found.verdict.detail) == ("inconclusive", "unknown-owner")
    assert "the making of some batches" in found.verdict.as_dict()["not_observed"]


def test_a_torn_run_is_told_and_doubted(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(status="interrupted", stages={"decode": 90 * MS})))
    assert names(found) == ["torn"]
    assert found.verdict.cause == "decode"


def test_a_run_and_its_loader_say_the_same(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(tier="hdd", stages={"read": 90 * MS})))
    assert isinstance(found.verdict, Verdict)
    assert str(found.verdict) == found.verdict.as_dict()["verdict"]["sentence"]
    empty = found.verdict.as_dict()["verdict"]
    names = ("mechanism", "mechanism_share", "evidence", "hot", "warning")
    assert [empty[name] for name in names] == [None, None, None, [], None]


def test_no_run_is_a_trace_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no run"):
        load(tmp_path)


def test_batch_means_of_a_constant_have_no_width() -> None:
    import numpy as np

    assert batch_means(np.full(100, 3.0), np.ones(100)) == pytest.approx((3.0, 3.0))
    assert batch_means(np.ones(3), np.ones(3)) is None


def test_batch_means_cover_the_mean_of_correlated_steps() -> None:
    """An AR(1) process with correlation 0.8: the interval holds the true mean about 19 times in 20."""
    import numpy as np

    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        noise = rng.standard_normal(2000)
        values = np.zeros(2000)
        for k in range(1, 2000):
            values[k] = 0.8 * values[k - 1] + noise[k]
        interval = batch_means(values + 10, np.ones(2000))
        assert interval is not None
        covered += interval[0] <= 10 <= interval[1]
    assert covered >= 180


def test_sentences_name_what_is_emulated(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(tier="hdd", stages={"read": 90 * MS})))
    assert "for the disk" in found.verdict.statement.headline
    assert "(emulated)" in found.verdict.statement.evidence


def test_the_record_says_what_run_json_does_not(tmp_path: Path) -> None:
    meta: dict[str, Any] = {"loaders": [], "accelerator": None, "storage": None, "machine": None}
    found = load(make_run(tmp_path / "run", Plan(workers=3, stages={"decode": 120 * MS}), **meta))
    assert found.facts is not None
    assert found.facts.workers == 3
    assert found.verdict.cause == "decode"


def test_a_verdict_is_read_as_its_dictionary_too(stalled: Analysis) -> None:
    verdict = stalled.verdict
    assert verdict["verdict"]["sentence"] == verdict.sentence == str(verdict)
    assert verdict["ledger_ns"] == verdict.as_dict()["ledger_ns"]


def test_what_a_new_epoch_costs_the_loop_is_its_own_time(tmp_path: Path) -> None:
    """Workers that persist are given a new epoch in `iter(loader)`, where the sampler draws: no step."""
    plan = Plan(
        batches=20,
        epochs=5,
        stages={"decode": 5 * MS},
        accelerator="none",
        compute=0,
        copy=0,
        main=10 * MS,
        startup_ns=400 * MS,
        persistent=True,
    )
    found = load(make_run(tmp_path / "run", plan))
    assert found.ledger is not None
    assert found.ledger.ledger_ns["main"] == pytest.approx(4 * 400 * MS, rel=0.05)
    assert found.verdict.cause == "main"
