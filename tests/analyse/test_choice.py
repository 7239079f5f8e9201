"""The rule that names a fix: what bears on the cause, can be carried out, and gains the most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.causes import Finding, cause_of_owner
from pipeprof.analyse.choice import bearing, candidates, choose, is_useless
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.harm import warning
from pipeprof.vocabulary import causes, fixes
from pipeprof.vocabulary.causes import Cause
from tests.factory import MS, Plan, make_run, walk


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    found = load(make_run(tmp_path / "run", Plan())).facts
    assert found is not None
    return replace(found, prefetches_to_device=False)


def test_a_fix_bears_on_the_cause_however_large_other_gains_are(facts: Facts) -> None:
    busy = replace(facts, own_cores=8.0)
    gains = {"ram": 9.0, "more-workers": 0.2, "cheaper-decode": 0.8, "lighter-transfer": 0.1, "loop": 20.0}
    assert choose(Finding("main"), busy, gains) == "loop"
    assert choose(Finding("collate"), busy, gains) == "lighter-transfer"
    assert choose(Finding("storage-latency"), busy, gains) == "ram"
    assert choose(Finding("accelerator"), busy, gains) == "none"


def test_of_equal_gains_the_least_effort(facts: Facts) -> None:
    gains = {"ram": 1.0, "faster-storage": 1.01, "more-workers": 0.98}
    assert choose(Finding("storage-latency"), facts, gains) == "more-workers"
    assert choose(Finding("storage-latency"), facts, {**gains, "more-workers": 0.9}) == "ram"


def test_an_idle_core_comes_before_fixes_that_cost(facts: Facts) -> None:
    gains = {"more-workers": 0.5, "cheaper-decode": 3.0}
    assert choose(Finding("decode"), replace(facts, cores=4, own_cores=1.0), gains) == "more-workers"
    assert choose(Finding("decode"), replace(facts, cores=4, own_cores=3.9), gains) == "cheaper-decode"


def test_more_cores_are_named_where_nothing_else_gains(facts: Facts) -> None:
    busy = replace(facts, own_cores=8.0)
    gains = {"more-cores": 3.0, "cheaper-decode": 0.2}
    assert choose(Finding("decode"), busy, gains) == "cheaper-decode"
    assert choose(Finding("decode"), busy, {"more-cores": 3.0, "cheaper-decode": 0.0}) == "more-cores"


USELESS: dict[str, tuple[Finding, dict[str, Any]]] = {
    "more-workers": (Finding("decode"), {"cores": 2, "own_cores": 1.9}),
    "persistent-workers": (Finding("startup"), {"workers": 0, "epochs": 5}),
    "out-of-order": (Finding("straggler"), {"workers": 1}),
    "fewer-workers": (Finding("cpu-contention", "oversubscribed"), {"workers": 1}),
    "deeper-prefetch": (Finding("straggler"), {"workers": 0}),
    "pin": (Finding("h2d"), {"pin_memory": True}),
    "device-prefetch": (Finding("h2d"), {"prefetches_to_device": True}),
    "ram": (Finding("storage-latency"), {"data_bytes": 10**12, "memory_bytes": 10**9}),
    "faster-storage": (Finding("storage-latency"), {"tier": "nvme"}),
    "shards": (Finding("storage-latency"), {"sharded": True}),
}
"""What is in place already, or known to be useless on the machine: no gain may make it advice."""


@pytest.mark.parametrize("fix", USELESS)
def test_what_is_known_to_be_useless_is_not_advised(facts: Facts, fix: str) -> None:
    finding, changes = USELESS[fix]
    useful = replace(facts, cores=8, own_cores=1.0, workers=4, epochs=5, persistent=False, tier="hdd")
    assert fix in candidates(finding, useful)
    useless = replace(useful, **changes)
    assert fix not in candidates(finding, useless)
    assert choose(finding, useless, {fix: 9.0}) != fix


@pytest.mark.parametrize("fix", ["more-workers", "deeper-prefetch"])
def test_batches_that_come_sooner_help_no_loop_that_is_busy_receiving(facts: Facts, fix: str) -> None:
    finding, roomy = Finding("transfer"), replace(facts, cores=8, own_cores=1.0, workers=4)
    assert not is_useless(fix, finding, replace(roomy, received_share=0.5))
    assert not is_useless(fix, finding, replace(roomy, received_share=None))
    assert is_useless(fix, finding, replace(roomy, received_share=0.9))


@pytest.mark.parametrize(
    ("cause", "useless"),
    [
        ("startup", ("more-workers", "deeper-prefetch", "fewer-workers")),
        ("stage:state_dict", ("more-workers", "fewer-workers")),
    ],
)
def test_another_number_of_workers_is_not_advised(facts: Facts, cause: str, useless: tuple[str, ...]) -> None:
    """They start no sooner; and a state that was saved is resumed with as many workers alone."""
    roomy = replace(facts, cores=8, own_cores=1.0, workers=4)
    assert all(is_useless(fix, Finding(cause), roomy) for fix in useless)


TINY: dict[str, Any] = {"workers": 2, "batch_bytes": 72.0, "pickling_ns": 2e5, "alone_share": 0.3}


def test_tiny_batches_are_made_sooner_than_handed_over(facts: Facts) -> None:
    """More workers were once named for batches of one row, beside a card that gave no workers 3.7 times."""
    tiny = replace(facts, cores=8, own_cores=1.0, making_ns=1e5, **TINY)
    finding = cause_of_owner("transfer", tiny)
    assert finding.detail == "tiny-batches"
    for gains in ({}, {"more-workers": 0.1, "no-workers": 2.7}):
        assert choose(finding, tiny, gains) == "no-workers"
    assert is_useless("more-workers", finding, tiny)
    assert choose(finding, replace(tiny, workers=1)) == "no-workers", "the last one too"
    figures = {"batch_bytes": "72 B", "making_ns": "100 µs"}
    assert "takes 100 µs to make" in causes.evidence("transfer", finding.detail, figures)


@pytest.mark.parametrize(
    "changes", [{"batch_bytes": 1e7}, {"pickling_ns": 3e6}, {"alone_share": 0.9}, {"alone_share": None}]
)
def test_batches_that_are_heavy_or_take_long_to_make_are_not_tiny(
    facts: Facts, changes: dict[str, Any]
) -> None:
    assert cause_of_owner("transfer", replace(facts, **{**TINY, **changes})).detail is None


def test_the_share_that_the_loop_alone_would_take(tmp_path: Path) -> None:
    plan = Plan(batches=40, workers=2, stages={"getitem": 6 * MS}, transfer=30 * MS, compute=3 * MS)
    found = load(make_run(tmp_path / "run", plan))
    assert found.facts is not None
    assert found.facts.making_ns == pytest.approx(6 * MS)
    batch_ns = found.facts.wall_ns / found.facts.batches
    assert found.facts.alone_share == pytest.approx(9 * MS / batch_ns, rel=0.05)


def test_the_share_of_the_waits_in_which_batches_were_unpickled(tmp_path: Path) -> None:
    plan = Plan(batches=40, workers=1, prefetch=1, stages={"getitem": 6 * MS}, transfer=30 * MS)
    made = walk(plan)
    begun = [at - 24 * MS for at in made.take]
    seen = replace(plan, step_columns={"receive_start_ns": begun, "received_ns": made.take})
    shares = [
        load(make_run(tmp_path / str(number), each)).facts.received_share  # type: ignore[union-attr]
        for number, each in enumerate((plan, seen))
    ]
    assert shares[0] is None
    waits = [at - asked for at, asked in zip(made.take, made.request, strict=True)][plan.warmup :]
    assert shares[1] == pytest.approx(24 * MS * len(waits) / sum(waits))


def test_no_worker_and_no_queue_makes_a_lock_wider(facts: Facts) -> None:
    assert choose(Finding("blocked", "lock"), facts, {"more-workers": 3.0}) == "unblock"
    assert choose(Finding("blocked", "sleep"), facts) == "more-workers"


@pytest.mark.parametrize(
    ("tier", "fix"),
    [("ssd", "more-workers"), ("network", "more-workers"), ("hdd", "ram"), (None, "more-workers")],
)
def test_more_readers_hide_latency_where_there_is_more_than_one_arm(
    facts: Facts, tier: str, fix: str
) -> None:
    facts = replace(facts, tier=tier, data_bytes=10, memory_bytes=1000)
    assert choose(Finding("storage-latency"), facts) == fix


def test_data_that_may_not_fit_in_memory_wants_faster_storage(facts: Facts) -> None:
    hdd = replace(facts, tier="hdd", memory_bytes=1000)
    assert choose(Finding("storage-latency"), replace(hdd, data_bytes=10)) == "ram"
    assert choose(Finding("storage-latency"), replace(hdd, data_bytes=900)) == "faster-storage"
    assert choose(Finding("storage-latency"), replace(hdd, data_bytes=None)) == "faster-storage"


def test_a_loader_without_workers_that_starts_slowly_is_told_nothing_useless(facts: Facts) -> None:
    assert (
        choose(Finding("startup"), replace(facts, workers=0, epochs=10), {"persistent-workers": 5.0})
        == "none"
    )


@pytest.mark.parametrize("cause", causes.CAUSES, ids=lambda cause: cause.word)
def test_the_fix_of_a_cause_is_a_candidate_or_nothing(cause: Cause, facts: Facts) -> None:
    for detail in (None, *(detail.word for detail in cause.details)):
        fix = choose(Finding(cause.word, detail), facts)
        assert fixes.BY_WORD[fix] in (*cause.candidates(detail), fixes.NONE)


def test_more_workers_are_not_named_where_each_would_deliver_the_same_samples(facts: Facts) -> None:
    idle = replace(facts, cores=4, own_cores=1.0, iterable=True)
    for splits in (True, None):
        assert "more-workers" in candidates(Finding("decode"), replace(idle, splits_stream=splits))
    assert "more-workers" not in candidates(Finding("decode"), replace(idle, splits_stream=False))


def test_the_warning_of_more_workers_is_for_streams_that_may_not_split(facts: Facts) -> None:
    assert warning("more-workers", facts) is None
    stream = replace(facts, iterable=True)
    assert "get_worker_info" in (warning("more-workers", replace(stream, splits_stream=None)) or "")
    assert warning("more-workers", replace(stream, splits_stream=True)) is None


def test_a_core_that_workers_wait_for_is_not_idle(facts: Facts) -> None:
    """Beside other programs this run's workers get little of the cores: more of them would get no more."""
    some = replace(facts, cores=2.0, own_cores=1.3)
    assert "more-workers" in candidates(Finding("stage:getitem"), some)
    assert "more-workers" not in candidates(Finding("stage:getitem"), replace(some, waited_cores=0.5))


@pytest.mark.parametrize("cause", causes.WORK, ids=lambda cause: cause.word)
def test_files_in_memory_are_no_cure_for_work(cause: Cause, facts: Facts) -> None:
    finding = Finding(cause.word)
    assert "ram" not in candidates(finding, facts)
    assert is_useless("ram", finding, facts)
    assert not is_useless("ram", Finding("storage-latency"), facts)


BESIDE: dict[str, tuple[str, Finding, dict[str, Any]]] = {
    "a core is full": ("more-workers", Finding("decode"), {"cores": 2, "own_cores": 1.9}),
    "cores are full of handing over": ("more-workers", Finding("transfer"), {"cores": 2, "own_cores": 1.9}),
    "the device's bandwidth is full": ("more-workers", Finding("storage-bandwidth"), {}),
    "a lock is held": ("more-workers", Finding("blocked", "lock"), {}),
    "the main process is full": ("more-workers", Finding("main"), {}),
    "the pin thread is full": ("more-workers", Finding("pin"), {}),
    "the network is full": ("more-workers", Finding("storage-network", "bandwidth"), {}),
    "tiny batches": ("lighter-transfer", Finding("transfer"), {"batch_bytes": 10_000}),
    "no workers": ("persistent-workers", Finding("decode"), {"workers": 0}),
    "workers that are slow to start": ("fewer-workers", Finding("startup"), {}),
}
"""Advice that is known to be useless, though the predictor may give it a gain."""


@pytest.mark.parametrize("why", BESIDE)
def test_what_is_known_to_be_useless_is_not_advised_beside_the_chosen_fix(facts: Facts, why: str) -> None:
    fix, finding, changes = BESIDE[why]
    calm = replace(facts, cores=8, own_cores=1.0, workers=4, epochs=5, persistent=False)
    assert is_useless(fix, finding, replace(calm, **changes))
    useful = {
        "more-workers": "storage-latency",
        "lighter-transfer": "transfer",
        "persistent-workers": "startup",
        "fewer-workers": "transfer",
    }
    assert not is_useless(fix, Finding(useful[fix]), replace(calm, batch_bytes=10e6))


def test_more_cores_never_stand_alone() -> None:
    """They cost money: what they are named with says what else helps."""
    assert "cheaper" in fixes.MORE_CORES.do


def test_of_code_and_a_stage_as_large_the_stage_is_blamed(tmp_path: Path) -> None:
    both = {"getitem": 50 * MS, "decode": 48 * MS}
    assert load(make_run(tmp_path / "close", Plan(stages=both))).verdict.cause == "decode"
    larger = {"getitem": 50 * MS, "decode": 40 * MS}
    assert load(make_run(tmp_path / "far", Plan(stages=larger))).verdict.cause == "stage:getitem"


@pytest.mark.parametrize(
    ("cause", "shares", "word", "bears"),
    [
        ("decode", {"decode": 0.58, "transfer": 0.012}, "cheaper-decode", True),
        ("decode", {"decode": 0.58, "transfer": 0.012}, "lighter-transfer", False),
        ("decode", {"decode": 0.40, "transfer": 0.20}, "lighter-transfer", True),
        ("decode", {"decode": 0.58, "straggler": 0.02}, "out-of-order", False),
        ("main", {"main": 0.34, "transfer": 0.08}, "deeper-prefetch", False),
        ("decode", {"decode": 0.40, "storage": 0.30}, "ram", True),
        ("decode", {"decode": 0.40, "cpu-contention": 0.30}, "fewer-workers", True),
        ("transfer", {"transfer": 0.52, "stage:state_dict": 0.12}, "more-workers", False),
        ("transfer", {"transfer": 0.52, "stage:state_dict": 0.12}, "cheaper-work", True),
    ],
)
def test_advice_bears_on_the_cause_or_on_much_of_the_time(
    cause: str, shares: dict[str, float], word: str, bears: bool
) -> None:
    assert (word in bearing(Finding(cause), shares)) is bears
