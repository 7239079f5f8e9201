"""The warning of a fix: only where the run shows that its harm applies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse import harm
from pipeprof.analyse.analysis import load
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.harm import warning
from pipeprof.vocabulary import fixes
from tests.factory import Counted, Plan, loader_meta, make_run

PLAN = Plan(batches=40)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A map-style data set without `set_epoch`, on a device."""
    facts = load(make_run(tmp_path_factory.mktemp("harm") / "run", PLAN)).facts
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("fix", "changes"),
    [
        (fixes.PERSISTENT_WORKERS, {"sets_epoch": True}),
        (fixes.PERSISTENT_WORKERS, {"sets_epoch": None, "iterable": True}),
        (fixes.MORE_WORKERS, {"iterable": True}),
        (fixes.MORE_WORKERS, {"worker_bytes": 3 << 30, "memory_left_bytes": 10 << 30}),
        (fixes.PIN, {"batch_bytes": 1.5 * (1 << 30), "memory_bytes": 10 << 30}),
        (fixes.ONE_THREAD, {"computes_on_cpu": True}),
        (fixes.NO_READ_AHEAD, {"remote": True}),
        (fixes.KEEP_OPEN, {"start_method": "fork"}),
    ],
    ids=lambda value: str(getattr(value, "word", "")),
)
def test_harm_is_told_where_the_run_shows_that_it_applies(
    plain: Facts, fix: fixes.Fix, changes: dict[str, Any]
) -> None:
    calm = replace(plain, sets_epoch=False, computes_on_cpu=False, start_method="spawn")
    assert warning(fix.word, calm) is None
    assert warning(fix.word, replace(calm, **changes)) == fix.harm


def test_little_memory_is_no_harm(plain: Facts) -> None:
    """A worker of a tenth of what is left, and batches of a tenth of the machine's memory."""
    some = replace(plain, worker_bytes=1 << 30, memory_left_bytes=10 << 30, memory_bytes=40 << 30)
    assert warning(fixes.MORE_WORKERS.word, some) is None
    assert warning(fixes.PIN.word, replace(some, batch_bytes=1.0 * (1 << 30))) is None


def test_the_record_says_what_a_worker_takes(tmp_path: Path) -> None:
    counters = [
        Counted("level.own_bytes", own << 20, worker) for worker, own in ((0, 100), (1, 300), (0, 200))
    ]
    counters += [Counted("level.memory_left_bytes", left << 30) for left in (4, 2, 3)]
    facts = load(make_run(tmp_path / "run", replace(PLAN, counters=counters))).facts
    assert facts is not None
    assert (facts.worker_bytes, facts.memory_left_bytes) == (300 << 20, 2 << 30)


def test_a_fix_that_reorders_samples_always_says_so(plain: Facts) -> None:
    for fix in fixes.FIXES:
        if fix.reorders:
            assert warning(fix.word, plain) == fix.harm != ""


def test_each_harm_is_told_of_some_run() -> None:
    known = {fix for fix in fixes.FIXES if fix.harm}
    assert {fix for fix in known if not fix.reorders} <= harm.APPLIES.keys()


def test_a_fix_without_harm_has_no_warning(plain: Facts) -> None:
    assert warning(fixes.NONE.word, plain) is None
    assert warning(fixes.CHEAPER_WORK.word, plain) is None


def test_the_record_says_whether_the_data_set_has_a_set_epoch(tmp_path: Path) -> None:
    meta = {"loaders": [loader_meta(PLAN, sets_epoch=True)]}
    facts = load(make_run(tmp_path / "run", PLAN, **meta)).facts
    assert facts is not None and facts.sets_epoch is True
