"""A quick part of the exam, and real loaders of every kind: each nanosecond has its owner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.answer import Answer, load
from pipeprof.measure.session import Session
from tests.diagnosis.__main__ import graded
from tests.diagnosis.cases import CASES
from tests.diagnosis.harness import Loop, train
from tests.diagnosis.planted import Both, Burn, Planted, PlantedStream, Sleep, Stragglers

pytestmark = pytest.mark.needs_cores
QUICK = ("a rate limit", "stragglers", "the accelerator", "pageable copies", "ten steps")
"""Cases that need no core of their own, so that a busy machine does not change them."""
QUICKEST = ("ten steps",)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in QUICKEST else pytest.mark.slow)
        for case in CASES
        if case.name in QUICK
    ],
)
def test_what_was_planted_is_named(tmp_path: Path, case: Any) -> None:
    case.run(tmp_path / "run")
    found = load(tmp_path / "run")
    # Its size may shrink beside what a busy machine adds; the whole exam holds it to that (__main__.py).
    assert graded(case, found, sizes=False) == "right", found.verdict


def sums(found: Answer) -> None:
    assert found.attribution is not None
    ledgers = [found.attribution.whole, *(ledger for _, _, ledger in found.attribution.epochs())]
    for ledger in ledgers:
        assert sum(ledger.ledger_ns.values()) == ledger.window.wall_ns
        assert sum(ledger.path_ns.values()) == ledger.window.wall_ns
    assert ledgers[0].path_ns.get("unknown", 0) < 0.02 * found.attribution.window.wall_ns


WORK = Both(Sleep(1), Burn(0.3))
LOADERS: dict[str, tuple[Callable[[], Any], dict[str, Any], int]] = {
    "no workers": (lambda: Planted(WORK, 120), {"num_workers": 0}, 2),
    "two workers": (lambda: Planted(WORK, 120), {"num_workers": 2}, 2),
    "persistent": (lambda: Planted(WORK, 120), {"num_workers": 2, "persistent_workers": True}, 3),
    "any order": (lambda: Planted(Stragglers(1, 30, 9), 120), {"num_workers": 3, "in_order": False}, 2),
    "a stream": (lambda: PlantedStream(WORK, 120), {"num_workers": 2}, 2),
    "a stream, no workers": (lambda: PlantedStream(WORK, 120), {"num_workers": 0}, 2),
    "one sample at a time": (lambda: Planted(WORK, 60), {"num_workers": 2, "batch_size": None}, 1),
    "spawned": (lambda: Planted(WORK, 40), {"num_workers": 1, "multiprocessing_context": "spawn"}, 1),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "persistent" else pytest.mark.slow) for name in LOADERS]
)
def test_every_nanosecond_of_a_real_run_has_an_owner(tmp_path: Path, name: str) -> None:
    make, arguments, epochs = LOADERS[name]
    loop = Loop(step_ms=2, steps=100, warmup=3, epochs=epochs)
    train(tmp_path / "run", make(), loop, **{"batch_size": 4, **arguments})
    found = load(tmp_path / "run")
    sums(found)
    assert found.attribution is not None
    assert {epoch for _, epoch, _ in found.attribution.epochs()} == set(range(epochs))


def test_a_loop_that_nobody_but_the_loader_sees(tmp_path: Path) -> None:
    """The wrapper's view: no device, an epoch left early, a second loader inside the first."""
    import time

    with Session(tmp_path / "run", "wrapper", warmup_steps=2) as session:
        outer = session.loader(Planted(Sleep(1), 240), batch_size=4, num_workers=2)
        inner = session.loader(Planted(Sleep(6), 16), batch_size=4)
        for k, _ in enumerate(outer):
            time.sleep(0.004)
            if k % 8 == 7:
                for _ in inner:
                    time.sleep(0.001)
            if k == 30:
                break
    found = load(tmp_path / "run")
    sums(found)
    assert found.as_dict()["utilization_kind"] == "loop-body"
    assert found.verdict.cause == "blocked"
