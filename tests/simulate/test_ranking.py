"""Which fixes gain, and which of them is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import analyse
from pipeprof.analyse.causes import Finding
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.why.shown import Shown
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.predict import Predictor
from pipeprof.simulate.ranking import Choice, Ranked, advice, choose, headroom, rank
from pipeprof.vocabulary import fixes, mechanisms
from tests.factory import MS, Plan
from tests.simulate.common import CPU_ONLY, HDD, demands_of, hdd_plan, recorded


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Forecast:
    place = tmp_path_factory.mktemp("made")
    return Forecast(analyse(recorded(place / "run", hdd_plan(batches=120), HDD)))


@pytest.fixture(scope="module")
def hdd(disk: Forecast) -> Demands:
    return disk.predictor.demands


def by_word(ranked: list[Ranked]) -> dict[str, Ranked]:
    found: dict[str, Ranked] = {}
    for one in ranked:
        found.setdefault(one.fix.word, one)
    return found


def forecast_of(directory: Path, plan: Plan) -> Forecast:
    return Forecast(analyse(recorded(directory, plan)))


def test_fixes_of_a_slow_disk(disk: Forecast) -> None:
    ranked = list(disk.fixes)
    found = by_word(ranked)
    assert found["faster-storage"].gain > 1.5
    assert found["faster-storage"].prediction.limit == "decode", "then the CPU: decode"
    assert found["shards"].prediction.limit == "decode"
    assert found["more-workers"].fix.knobs.workers == 2, "two keep the disk busy: the cheapest of equals"
    assert 0.3 < found["more-workers"].gain < 0.7
    assert found["more-workers"].prediction.limit == "storage"
    assert found["cheaper-decode"].gain < 0.3
    assert abs(found["loop"].gain) < 0.01
    assert ranked == sorted(ranked, key=lambda one: (not one.feasible, -one.gain))
    assert disk.choice.word == "ram"
    assert disk.choice.ranked == disk.advice[0]


def test_a_decode_bound_worker_beside_idle_cores_wants_company(tmp_path: Path) -> None:
    plan = Plan(workers=1, stages={"decode": 100 * MS}, compute=20 * MS, batches=100)
    forecast = forecast_of(tmp_path / "run", plan)
    assert forecast.verdict.cause == "decode"
    assert forecast.verdict.fix == "more-workers"
    best = forecast.choice.ranked
    assert best is not None
    assert best.fix.knobs.workers in (6, 8), "five would do, six are asked about"
    assert best.prediction.limit == "accelerator"


def test_nothing_is_advised_to_a_run_that_lacks_nothing(tmp_path: Path) -> None:
    forecast = forecast_of(tmp_path / "run", Plan(workers=4, batches=100))
    assert forecast.choice == Choice("none")
    assert forecast.verdict.fix == "none"
    assert forecast.advice == []


def test_stragglers_want_deeper_prefetching_or_another_order(tmp_path: Path) -> None:
    slow = [400 * MS if k % 24 == 3 else 25 * MS for k in range(240)]
    plan = Plan(workers=4, prefetch=1, batches=240, epochs=2, stages={"decode": slow}, compute=12 * MS)
    forecast = forecast_of(tmp_path / "run", plan)
    assert forecast.verdict.cause == "straggler"
    assert forecast.choice.word in ("deeper-prefetch", "out-of-order")


def facts_of(disk: Forecast) -> Facts:
    assert disk.analysis.facts is not None
    return disk.analysis.facts


def test_what_does_not_fit_in_memory_is_no_advice(disk: Forecast, hdd: Demands) -> None:
    ranked = rank(Predictor(replace(hdd, host=replace(hdd.host, memory_bytes=100 << 20))))
    assert not by_word(ranked)["ram"].feasible
    best = choose(ranked, Finding("storage-latency"), facts_of(disk))
    assert best.word in ("faster-storage", "shards")
    ram = [one for one in ranked if one.fix.word == "ram"]
    assert (
        choose(ram, Finding("page-cache"), replace(facts_of(disk), tier="nvme", sharded=True)).word == "none"
    )


def test_files_in_memory_are_no_cure_for_decoding(disk: Forecast) -> None:
    """They gain on this disk; where decoding is the cause they are neither chosen nor listed beside it."""
    assert by_word(disk.fixes)["ram"].gain > 1
    busy, finding = replace(facts_of(disk), own_cores=8.0), Finding("decode")
    chosen = choose(disk.fixes, finding, busy)
    assert chosen.word == "cheaper-decode"
    assert "ram" not in [one.fix.word for one in advice(disk.fixes, chosen, finding, busy)]


def test_gains_choose_nothing_where_the_replay_is_not_the_run(disk: Forecast) -> None:
    """A replay that is ten times as fast as the run saw no disk: that nothing gains in it is no answer."""
    useless = [replace(one, gain=0.001) for one in disk.fixes]
    assert choose(useless, Finding("storage-latency"), facts_of(disk), replay_error=9.0) == Choice("ram")
    hint = choose(disk.fixes, Finding("storage-latency"), facts_of(disk), replay_error=-0.5)
    assert hint.word == "ram" and hint.ranked is not None


def test_nothing_else_is_advised_where_the_replay_is_not_the_run(disk: Forecast) -> None:
    facts, finding = disk.analysis.facts, disk.analysis.verdict.finding
    assert facts is not None
    assert len(advice(disk.fixes, disk.choice, finding, facts, 0.02)) > 1
    assert advice(disk.fixes, disk.choice, finding, facts, 11.0) == [disk.choice.ranked]


def test_a_cache_is_unknown_to_the_replay(disk: Forecast) -> None:
    facts = disk.analysis.facts
    assert facts is not None
    shown = Shown(mechanisms.LOST_CACHE, 1.0, {}, fixes.PERSISTENT_WORKERS)
    assert choose(disk.fixes, Finding("decode", shown=shown), facts).ranked is None


def test_what_was_not_predicted_is_followed_by_what_was(disk: Forecast) -> None:
    asked = Finding("storage-latency"), facts_of(disk)
    listed = advice(disk.fixes, Choice("one-thread"), *asked)
    assert [one.fix.word for one in listed] == ["ram", "faster-storage"], "two beside the unpredicted one"
    assert advice(disk.fixes, Choice("none"), *asked) == []
    assert advice(disk.fixes, disk.choice, *asked)[0] == disk.choice.ranked


def test_a_fix_that_is_predicted_to_gain_nothing_is_not_named(disk: Forecast) -> None:
    useless = [replace(one, gain=0.01) for one in disk.fixes]
    assert choose(useless, Finding("storage-latency"), facts_of(disk)).word == "none"


def test_headroom_is_what_the_accelerator_could_still_take(hdd: Demands) -> None:
    predictor = Predictor(hdd)
    assert headroom(predictor).rate == pytest.approx(32 / 0.1, rel=0.02)


def test_headroom_without_a_read_is_what_the_code_costs(tmp_path: Path) -> None:
    demands = demands_of(tmp_path / "run", Plan(workers=1, batches=80, stages=CPU_ONLY, compute=20 * MS), HDD)
    assert not demands.place.reads_observed
    predictor = Predictor(demands)
    assert predictor.base().rate == pytest.approx(32 / 0.0412, rel=0.02)
    assert headroom(predictor).rate == pytest.approx(32 / 0.02, rel=0.02)
