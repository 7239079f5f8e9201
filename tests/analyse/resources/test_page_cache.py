"""What later epochs find in memory, so that a first epoch is not taken for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, load
from tests.factory import MS, Counted, Plan, loader_meta, make_run

REAL = {"tier": None, "name": None, "emulated": False, "cache": None, "model": None}
BATCH_BYTES = 32 * 110_000


def read(directory: Path, device_share: float, memory_bytes: int, **changes: Any) -> Analysis:
    """A run over a set of 1,000 samples of 110 KB, of which the device gave a share."""
    plan = Plan(
        workers=1,
        stages={"read": 60 * MS, "decode": 10 * MS},
        compute=10 * MS,
        batch_columns={"device_bytes": int(device_share * BATCH_BYTES)},
        **changes,
    )
    machine = {"cpu_count": 8, "usable_cores": 8, "memory_bytes": memory_bytes}
    loaders = [loader_meta(plan, samples=1000)]
    return load(make_run(directory, plan, storage=REAL, emulated=[], machine=machine, loaders=loaders))


def doubts(found: Analysis) -> list[str]:
    return [doubt.name for doubt in found.verdict.doubts]


def test_a_cold_first_epoch_of_a_set_that_fits(tmp_path: Path) -> None:
    found = read(tmp_path / "run", 1.0, 1 << 30)
    assert "first-epoch" in doubts(found)
    told = found.verdict.as_dict()["page_cache"]
    assert told["set_bytes"] == pytest.approx(110e6)
    assert (told["memory_share"], told["later_share"]) == (0.0, 1.0)
    assert found.verdict.cause.startswith("storage"), "it is still the answer for this epoch"


def test_a_set_that_does_not_fit_stays_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path / "run", 1.0, 10 << 20)
    assert "first-epoch" not in doubts(found)
    assert found.facts is not None
    assert found.facts.page_cache is not None
    assert found.facts.page_cache.later_share == pytest.approx(0.8 * (10 << 20) / 110e6)


def test_a_warm_beginning_of_a_set_that_does_not_fit(tmp_path: Path) -> None:
    found = read(tmp_path / "run", 0.01, 10 << 20)
    doubt = next(doubt for doubt in found.verdict.doubts if doubt.name == "first-epoch")
    assert "waits for the storage" in doubt.problem


def test_what_was_measured_over_two_epochs_is_no_first_one(tmp_path: Path) -> None:
    assert "first-epoch" not in doubts(read(tmp_path / "run", 1.0, 1 << 30, epochs=2))


def opened(times: int, again: int) -> dict[str, Any]:
    return {"counters": (Counted("open.count", times), Counted("open.repeated", again))}


def test_samples_that_share_a_file_do_not_tell_the_size_of_the_set(tmp_path: Path) -> None:
    """Rows of a table, each read from its beginning, were once told as a set larger than the memory."""
    found = read(tmp_path / "run", 0.01, 10 << 20, **opened(1000, 998))
    assert "first-epoch" not in doubts(found)
    assert found.facts is not None
    assert found.facts.page_cache is None


def test_a_few_files_that_are_opened_again_still_tell_it(tmp_path: Path) -> None:
    assert "first-epoch" in doubts(read(tmp_path / "run", 0.01, 10 << 20, **opened(1000, 100)))


@pytest.mark.parametrize(("again", "is_known"), [(999 * 3, False), (1000 * 2, True)])
def test_over_some_epochs_a_file_of_each_sample_is_opened_once_in_each(
    tmp_path: Path, again: int, is_known: bool
) -> None:
    found = read(tmp_path / "run", 0.01, 10 << 20, epochs=3, **opened(1000 * 3, again))
    assert found.facts is not None
    assert (found.facts.page_cache is not None) is is_known
