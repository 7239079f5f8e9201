"""The dictionary of DESIGN §5, doubts, and runs that are not one loader on one device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse import day, walk
from pipeprof.analyse.answer import Answer, answer, load
from pipeprof.analyse.interval import batch_means
from pipeprof.errors import TraceError
from pipeprof.pipeline import ints
from pipeprof.trace import TraceWriter
from pipeprof.trace import load as load_run
from tests.analyse.test_walk import changed, sums_exactly
from tests.factory import MS, ORIGIN_NS, Plan, make_run

KEYS = [
    "schema", "status", "verdict", "wall_ns", "ledger_ns", "path_ns", "utilization", "utilization_kind",
    "throughput_samples_per_s", "steps", "emulated", "not_observed",
]  # fmt: skip
VERDICT_KEYS = [
    "band", "cause", "detail", "fix", "sentence", "stall_share", "stall_interval", "doubts",
]  # fmt: skip


def names(found: Answer) -> list[str]:
    return [doubt.name for doubt in found.verdict.doubts]


def test_the_dictionary_has_its_keys(tmp_path: Path) -> None:
    told = json.loads(json.dumps(load(make_run(tmp_path / "run")).as_dict()))
    assert list(told) == KEYS
    assert list(told["verdict"]) == VERDICT_KEYS
    assert told["schema"] == 1
    assert told["steps"] == 55
    assert sum(told["ledger_ns"].values()) == told["wall_ns"] == sum(told["path_ns"].values())
    assert told["utilization_kind"] == "emulated"
    assert told["emulated"] == ["storage", "accelerator"]


def test_utilisation_is_the_sum_of_the_steps_over_the_wall(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", Plan(stages={"decode": 70 * MS})))
    steps = run.table("steps")
    busy = (ints(steps["compute_end_ns"]) - ints(steps["compute_start_ns"]))[5:].sum()
    told = answer(run).as_dict()
    assert told["utilization"] == pytest.approx(busy / told["wall_ns"], abs=1e-9)


def test_without_a_device_the_loop_body_counts_less_what_was_marked(tmp_path: Path) -> None:
    plan = Plan(workers=0, accelerator="none", stages={"decode": 30 * MS}, compute=0, copy=0, main=70 * MS)
    run = load_run(make_run(tmp_path / "run", plan))
    assert answer(run).as_dict()["utilization"] == pytest.approx(0.7, abs=0.02)
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
    told = found.as_dict()
    assert told["utilization_kind"] == "loop-body"
    assert told["utilization"] == pytest.approx(0.5, abs=0.02)
    assert found.ledger.ledger_ns["main"] / told["wall_ns"] == pytest.approx(0.2, abs=0.02)


def test_between_epochs_the_loop_computes_nothing(tmp_path: Path) -> None:
    """100 ms of startup beside 10 steps of 30 + 20 ms in each epoch; no device was observed."""
    plan = Plan(
        batches=10,
        epochs=12,
        warmup=10,  # the first epoch, and what lies between it and the next
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
    assert found.ledger.ledger_ns["startup"] == pytest.approx(10 * 100 * MS, rel=0.05)
    assert found.verdict.cause == "startup"


def test_a_wait_measured_on_the_device_is_the_stall(tmp_path: Path) -> None:
    """The loop waits 30 ms a step, of which the device saw 10."""
    plan = Plan(workers=0, accelerator="none", stages={"decode": 30 * MS}, compute=0, copy=0, main=70 * MS)
    run = load_run(make_run(tmp_path / "run", plan))
    found = answer(changed(run, "steps", "device_wait_ns", [10 * MS] * plan.batches))
    told = found.as_dict()
    assert told["utilization_kind"] == "cuda-events"
    assert found.verdict.stall_share == pytest.approx(0.1, abs=0.01)


def test_epochs_and_moving_windows_sum_to_their_walls(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=30, epochs=4, startup_ns=90 * MS))).attribution
    assert found is not None
    epochs = found.epochs()
    assert [epoch for _, epoch, _ in epochs] == [0, 1, 2, 3]
    assert sum(ledger.window.wall_ns for _, _, ledger in epochs) == found.window.wall_ns
    for ledger in [*(ledger for _, _, ledger in epochs), *found.moving(70 * MS, 33 * MS)]:
        assert sum(ledger.ledger_ns.values()) == sum(ledger.path_ns.values()) == ledger.window.wall_ns


def test_a_long_walk_is_the_same_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(tmp_path / "run", Plan(workers=3, stages={"read": 70 * MS}, jitter=0.3))
    whole = load(directory)
    monkeypatch.setattr(walk, "CHUNK", 3)
    monkeypatch.setattr(day, "CHUNK", 4)
    cut = load(directory)
    assert cut.ledger == whole.ledger


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
    writer = TraceWriter(tmp_path / "run", {"loaders": [{"id": 0, "workers": 1}, {"id": 1, "workers": 0}]})
    writer.append("steps", {**keys, "step": step, "request_ns": request, "take_ns": took})
    made = {"worker": worker, "dispatch_ns": start, "start_ns": start, "finish_ns": finish}
    writer.append("batches", {**keys, **made})
    writer.append("stages", {**keys, "stage": ["decode"] * len(rows), "wall_ns": making})
    writer.close("complete")
    run = load_run(tmp_path / "run")
    sums_exactly(run)
    found = answer(run)
    assert found.verdict.cause == "decode"
    assert found.facts is not None
    assert found.facts.workers == 0  # the loader that was waited for


def test_a_cold_run_out_of_the_page_cache_is_inconclusive(tmp_path: Path) -> None:
    storage = {"tier": "ssd", "emulated": False, "cache": "cold", "path": "/data"}
    run = load_run(make_run(tmp_path / "run", Plan(stages={"read": 90 * MS}), storage=storage))
    cold = answer(changed(run, "batches", "device_bytes", [32 * 110_000] * 60))
    assert cold.verdict.cause == "storage-latency"
    warm = answer(changed(run, "batches", "device_bytes", [0] * 60))
    assert (warm.verdict.cause, names(warm)[0]) == ("inconclusive", "page-cache")
    assert "cold" in warm.sentence


def test_clock_trouble_is_inconclusive(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", Plan(stages={"decode": 90 * MS})))
    ahead = [end + 10**9 for end in run.table("batches")["finish_ns"].to_pylist()]
    assert names(answer(changed(run, "batches", "finish_ns", ahead)))[0] == "clock"


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
    found = answer(run)
    assert (found.verdict.cause, found.verdict.detail) == ("inconclusive", "unknown-owner")
    assert "the making of some batches" in found.as_dict()["not_observed"]


def test_a_torn_run_is_told_and_doubted(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(status="interrupted", stages={"decode": 90 * MS})))
    assert names(found) == ["torn"]
    assert found.verdict.cause == "decode"


def test_gains_choose_the_fix(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(tier="hdd", stages={"read": 90 * MS})))
    assert found.with_gains({"shards": 4.0, "ram": 2.0}).verdict == replace(found.verdict, fix="shards")


def test_no_run_is_a_trace_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no run directory"):
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
    assert "for the disk" in found.sentence
    assert "(emulated)" in found.sentence


def test_the_record_says_what_run_json_does_not(tmp_path: Path) -> None:
    meta: dict[str, Any] = {"loaders": [], "accelerator": None, "storage": None, "machine": None}
    found = load(make_run(tmp_path / "run", Plan(workers=3, stages={"decode": 120 * MS}), **meta))
    assert found.facts is not None
    assert found.facts.workers == 3
    assert found.verdict.cause == "decode"
