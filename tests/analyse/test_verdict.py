"""What is said of runs whose bottleneck is known by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.causes import Finding, find_cause
from pipeprof.analyse.choice import choose
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.ledger.attribution import Ledger
from pipeprof.analyse.sentence import spent_waiting
from pipeprof.record import reader
from pipeprof.timeline import Window, read_timeline
from pipeprof.vocabulary.bands import band_of
from tests.factory import MS, Plan, S, make_run

GPU = {"gpu_names": ["made"], "usable_cores": 8, "memory_bytes": 16 << 30}


def made(tmp_path: Path, plan: Plan, **meta: Any) -> Analysis:
    return load(make_run(tmp_path / "run", plan, **meta))


SLOW = 200 * MS
CAUSES: dict[str, tuple[Plan, str, str]] = {
    "hdd": (Plan(tier="hdd", stages={"read": SLOW, "decode": MS}), "storage-latency", "ram"),
    "ssd": (Plan(stages={"read": SLOW, "decode": MS}), "storage-bandwidth", "ram"),
    "decode": (Plan(workers=1, stages={"read": MS, "decode": SLOW, "collate": MS}), "decode", "more-workers"),
    "transform": (Plan(stages={"transform:Blur": SLOW, "decode": MS}), "transform:Blur", "more-workers"),
    "stage": (Plan(workers=0, stages={"stage:parse": SLOW, "decode": MS}), "stage:parse", "more-workers"),
    "collate": (Plan(stages={"decode": MS, "collate": SLOW}), "collate", "more-workers"),
    "transfer": (Plan(stages={"decode": MS}, transfer=SLOW, prefetch=1), "transfer", "lighter-transfer"),
    "pin": (Plan(pin_memory=True, stages={"decode": MS}, pin=80 * MS), "pin", "lighter-transfer"),
    "h2d": (Plan(stages={"decode": MS}, copy=60 * MS), "h2d", "pin"),
    "main": (Plan(stages={"decode": MS}, main=60 * MS), "main", "loop"),
    "accelerator": (Plan(compute=80 * MS), "accelerator", "none"),
    "straggler": (
        Plan(batches=400, workers=4, stages={"decode": [20 * MS] * 39 + [1 * S]}, compute=15 * MS),
        "straggler",
        "out-of-order",
    ),
    "startup": (
        Plan(batches=10, epochs=8, startup_ns=2 * S, stages={"decode": MS}),
        "startup",
        "persistent-workers",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_cause_and_fix(tmp_path: Path, name: str) -> None:
    plan, cause, fix = CAUSES[name]
    verdict = made(tmp_path, plan, machine=GPU).verdict
    assert (verdict.cause, verdict.fix) == (cause, fix)
    assert not [doubt for doubt in verdict.doubts if doubt.decisive]


@pytest.mark.parametrize("planted", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("owner", ["decode", "storage", "transform:Blur"])
def test_a_planted_share_is_found(tmp_path: Path, owner: str, planted: float) -> None:
    """Without workers each step lasts stage + compute: the stage's share is known exactly."""
    stage = "read" if owner == "storage" else owner
    whole = 100 * MS
    plan = Plan(
        workers=0,
        synchronises=True,
        stages={stage: round(planted * whole)},
        compute=round((1 - planted) * whole),
        copy=0,
        main=0,
    )
    ledger = made(tmp_path, plan).ledger
    assert ledger is not None
    assert ledger.ledger_ns[owner] / ledger.window.wall_ns == pytest.approx(planted, abs=0.01)


def test_a_worker_bound_run_blames_the_stages_in_proportion_and_not_the_last(tmp_path: Path) -> None:
    plan = Plan(workers=4, stages={"read": 120 * MS, "decode": 60 * MS, "collate": 20 * MS}, compute=10 * MS)
    ledger = made(tmp_path, plan).ledger
    assert ledger is not None
    stall = ledger.stall_ns
    assert ledger.ledger_ns["storage"] / stall == pytest.approx(0.6, abs=0.02)
    assert ledger.ledger_ns["collate"] / stall == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_healthy_run_is_never_called_input_bound(tmp_path: Path, workers: int, seed: int) -> None:
    stages = {"read": 5 * MS * workers, "decode": 8 * MS * workers}
    verdict = made(tmp_path, Plan(workers=workers, stages=stages, jitter=0.3, seed=seed)).verdict
    assert (verdict.cause, verdict.band, verdict.fix) == ("accelerator", "not", "none")


def test_ten_steps_say_nothing(tmp_path: Path) -> None:
    verdict = made(tmp_path, Plan(batches=15, warmup=5, stages={"read": SLOW})).verdict
    assert (verdict.cause, verdict.detail) == ("inconclusive", "too-few-steps")


def test_many_steps_in_a_moment_say_nothing(tmp_path: Path) -> None:
    """80 steps of 450 µs, as a loop over tensors has them."""
    plan = Plan(batches=85, stages={"decode": 200_000}, compute=400_000, transfer=0, startup_ns=MS)
    verdict = made(tmp_path, plan).verdict
    assert (verdict.cause, verdict.detail, verdict.fix) == ("inconclusive", "too-short", "none")
    assert "took 3" in verdict.sentence and "2 s" in verdict.sentence


def test_pipeprofs_own_work_is_not_the_loops_python(tmp_path: Path) -> None:
    stages = {"decode": 100_000}
    plan = Plan(batches=1500, stages=stages, compute=MS, main=MS, synchronises=True, spans_every=0)
    light, heavy = ({"span_ns": 400, "batch_ns": 12_000, "flush_ns": ns} for ns in (100_000, 1_100_000))
    own = load(make_run(tmp_path / "own", plan, overhead=heavy)).verdict
    assert (own.cause, own.detail) == ("inconclusive", "own-cost")
    assert load(make_run(tmp_path / "loop", plan, overhead=light)).verdict.cause == "main"


def test_no_step_at_all_says_so(tmp_path: Path) -> None:
    answer = made(tmp_path, Plan(batches=5, warmup=5))
    assert answer.ledger is None
    assert answer.verdict.cause == "inconclusive"
    assert answer.verdict.as_dict()["verdict"]["stall_share"] is None


def test_bands_begin_at_their_lower_bound() -> None:
    assert [band_of(share).word for share in (0.0, 0.0499, 0.05, 0.1999, 0.2, 1.0)] == [
        "not", "not", "moderately", "moderately", "highly", "highly",
    ]  # fmt: skip


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    found = made(tmp_path, Plan()).facts
    assert found is not None
    return found


def blame(owner: str, facts: Facts) -> Finding:
    """What is found where `owner` alone kept the accelerator idle, half of the time."""
    return find_cause(Ledger(Window(0, 100), {"accelerator": 50, owner: 50}), facts)


@pytest.mark.parametrize(
    ("changes", "detail", "fix"),
    [
        ({"workers": 8, "cores": 2, "own_cores": 1.9, "other_cores": 0.1}, "oversubscribed", "fewer-workers"),
        ({"workers": 1, "cores": 2, "own_cores": 0.3, "other_cores": 1.7}, "neighbour", "free-cores"),
        ({"workers": 8, "cores": 2, "own_cores": 0.4, "other_cores": 1.6}, "neighbour", "free-cores"),
        ({"workers": 2, "cores": 1, "quota_cores": 1, "own_cores": 0.9}, "quota", "more-cores"),
        (
            {"workers": 8, "cores": 2, "own_cores": 1.9, "other_cores": None},
            "oversubscribed",
            "fewer-workers",
        ),
        ({"workers": 1, "cores": 2, "own_cores": 0.1, "other_cores": None}, None, "none"),
    ],
)
def test_who_took_the_cores(facts: Facts, changes: dict[str, Any], detail: str | None, fix: str) -> None:
    facts = replace(facts, **changes)
    finding = blame("cpu-contention", facts)
    assert (finding.detail, choose(finding, facts)) == (detail, fix)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"tier": "network"}, "storage-network"),
        ({"cache_bytes": 10, "data_bytes": 100, "epochs": 3}, "page-cache"),
        ({"cache_bytes": 10, "data_bytes": 100, "epochs": 1, "tier": "hdd"}, "storage-bandwidth"),
        ({"storage_model": None, "read_bytes": 1 << 30, "reads": 100}, "storage-bandwidth"),
        ({"storage_model": None, "read_bytes": 1 << 20, "reads": 100}, "storage-latency"),
        ({"storage_model": None, "read_bytes": None, "reads": None}, "storage-latency"),
    ],
)
def test_what_of_the_storage(facts: Facts, changes: dict[str, Any], cause: str) -> None:
    assert blame("storage", replace(facts, **changes)).cause == cause


@pytest.mark.parametrize(
    ("states", "cause", "detail"),
    [
        ({}, "blocked", None),
        ({"lock": 0.8, "sleep": 0.2}, "blocked", "lock"),
        ({"sleep": 1.0}, "blocked", "sleep"),
        ({"disk": 0.9, "lock": 0.1}, "storage-bandwidth", None),
    ],
)
def test_what_blocked(facts: Facts, states: dict[str, float], cause: str, detail: str | None) -> None:
    finding = blame("blocked", replace(facts, states=states))
    assert (finding.cause, finding.detail) == (cause, detail)


@pytest.mark.parametrize(
    ("code_ns", "detail", "fix"), [(30, "in-next", "batch-fetch"), (20, None, "loop"), (0, None, "loop")]
)
def test_the_loaders_own_code_is_not_called_the_loops(
    facts: Facts, code_ns: int, detail: str | None, fix: str
) -> None:
    facts = replace(facts, loader_code_ns=code_ns)
    finding = blame("main", facts)
    assert (finding.cause, finding.detail, choose(finding, facts)) == ("main", detail, fix)


@pytest.mark.parametrize(("workers", "code_ns"), [(0, 3 * MS), (2, 0)])
def test_the_time_in_next_that_makes_no_batch_is_the_loaders(
    tmp_path: Path, workers: int, code_ns: int
) -> None:
    timeline = read_timeline(reader.load(make_run(tmp_path / "run", Plan(workers=workers))))
    timeline = replace(timeline, take_ns=timeline.take_ns + 3 * MS)
    assert set(timeline.loader_code_ns.tolist()) == {code_ns}


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "spent 80% of the time waiting for the disk"),
        (0.798, "spent 80% of the time waiting for the disk"),
        (0.73, "spent 80% of the time waiting for data, nearly all of it for the disk"),
        (0.49, "spent 80% of the time waiting for data, most of it for the disk (49% of the time)"),
        (0.3, "spent 80% of the time waiting for data, a large part of it for the disk (30% of the time)"),
    ],
)
def test_what_is_blamed_is_not_given_the_time_of_all_waiting(share: float | None, said: str) -> None:
    assert spent_waiting(0.8, share, "the disk") == said
