"""The exam, one case of each cause, and real loaders of every kind: each nanosecond has its owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.measure.session.session import Session
from tests.diagnosis.__main__ import CASES, DEVICES, MECHANISMS, graded, share
from tests.diagnosis.harness import Case, Loop, said, train
from tests.diagnosis.planted import Both, Burn, Planted, PlantedStream, Sleep, Stragglers
from tests.timing import Timing

pytestmark = pytest.mark.usefixtures("of_any_length")

QUICKEST = ("ten steps",)
BY_HAND = ("between processes",)
"""Copies take both cores of a small machine: beside any other program it is contention that is seen."""


def marked() -> Iterator[Any]:
    """All cases: the quickest in every run, the others by hand but for those in CI.

    Those are the first of each cause and detail, and mechanisms whose runs wait more than they compute, or
    are quick on one core. Cases that limit a disk of the machine are run by hand.
    """
    seen = set()
    for case in CASES:
        planted = (case.cause, case.detail)
        in_ci = (
            case.waits or case.quick if case in MECHANISMS else planted not in seen and case not in DEVICES
        )
        in_ci = in_ci and case.name not in BY_HAND
        mark = pytest.mark.slow if in_ci else pytest.mark.heavy
        seen.add(planted)
        yield pytest.param(case, id=case.name, marks=() if case.name in QUICKEST else mark)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", list(marked()))
def test_what_was_planted_is_named(tmp_path: Path, timing: Timing, case: Case) -> None:
    if why := case.needs():
        pytest.skip(why)

    def attempt(number: int) -> None:
        case.run(tmp_path / str(number))
        answer = load(tmp_path / str(number))
        grade = graded(case, answer, sizes=False)
        if grade != "right" and timing.explains(answer.verdict.cause, answer.verdict.detail):
            return
        if grade == "unsure without mechanism":
            with timing.compared():  # it has to explain half of the place's time, others' part included
                raise AssertionError(grade)
            return
        assert grade == "right", f"{grade}: {said(answer)}, fix {answer.verdict.fix}"
        with timing.compared():  # what a busy machine adds makes the planted share smaller
            assert graded(case, answer) == "right", share(answer, (case.size or ("", 0.0))[0])

    timing.attempts(attempt)


def sums(found: Analysis) -> None:
    assert found.attribution is not None
    ledgers = [found.attribution.whole, *(ledger for _, ledger in found.attribution.epochs())]
    for ledger in ledgers:
        assert sum(ledger.ledger_ns.values()) == ledger.window.wall_ns
        assert sum(ledger.path_ns.values()) == ledger.window.wall_ns
    assert ledgers[0].path_ns.get("unknown", 0) < 0.02 * found.attribution.window.wall_ns


WORK = Both(Sleep(10), Burn(3))  # long beside what observing costs: 0.3 ms a step of a stream, on slow cores
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
    assert {one.epoch for one, _ in found.attribution.epochs()} == set(range(epochs))


@pytest.mark.parametrize("anew", [False, True])
def test_epochs_without_workers_have_no_start_up(tmp_path: Path, timing: Timing, anew: bool) -> None:
    """What lies between the passes is a pause, be the loader the same or made anew for each."""
    import time

    with Session(tmp_path / "run", "wrapper") as session:
        loader = session.loader(Planted(Sleep(1), 60), batch_size=4)
        for _ in range(3):
            for _ in loader:
                time.sleep(0.01)
            time.sleep(0.3)
            if anew:
                loader = session.loader(Planted(Sleep(1), 60), batch_size=4)
    found = load(tmp_path / "run")
    sums(found)
    measured = found.verdict.measured
    assert found.ledger is not None and measured.outside is not None
    assert "startup" not in found.ledger.ledger_ns
    assert measured.outside.pauses_ns >= 600_000_000
    assert measured.other_loaders == ()
    with timing.compared():  # 45 steps of 4 ms and 10 ms
        assert found.ledger.window.wall_ns < 900_000_000
        assert found.ledger.ledger_ns["accelerator"] < 600_000_000


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
    assert found.verdict.as_dict()["utilization_kind"] == "loop-body"
    assert found.verdict.cause == "blocked"
