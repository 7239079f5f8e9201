"""Doubts about verdicts, each beside the runs that must not have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.answer import Answer, load
from pipeprof.analyse.doubts import MAPPED, doubts_about
from tests.factory import MS, Plan, make_run

SEEN = {"reads": None, "device_bytes": 1 << 30}
"""Bytes came from the device, and no read of Python's brought them: they were mapped."""


def answered(tmp_path: Path, stages: dict[str, int]) -> Answer:
    return load(make_run(tmp_path / "run", Plan(workers=1, batches=60, stages=stages, compute=5 * MS)))


def named(found: Answer, **changes: Any) -> list[str]:
    assert found.attribution is not None and found.facts is not None
    return [one.name for one in doubts_about(found.run, found.attribution, replace(found.facts, **changes))]


def test_unnamed_code_beside_a_busy_disk_may_be_the_disk(tmp_path: Path) -> None:
    found = answered(tmp_path, {"getitem": 60 * MS, "read": 45 * MS})
    assert found.attribution is not None and found.facts is not None
    ledger = found.attribution.whole.ledger_ns
    assert ledger["storage"] > MAPPED * ledger["stage:getitem"]
    doubts = doubts_about(found.run, found.attribution, replace(found.facts, **SEEN))
    (mapped,) = (one for one in doubts if one.name == "mapped-reads")
    assert mapped.decisive
    assert "memory map" in mapped.problem and "pipeprof.stage()" in mapped.remedy


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": 100, "device_bytes": 1 << 30}),
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": None, "device_bytes": 0}),
        ({"getitem": 60 * MS, "read": 45 * MS}, {"reads": None, "device_bytes": None}),
        ({"getitem": 60 * MS, "read": 20 * MS}, SEEN),
        ({"getitem": 45 * MS, "read": 60 * MS}, SEEN),
        ({"decode": 60 * MS, "read": 45 * MS}, SEEN),
        ({"stage:parse": 60 * MS, "read": 45 * MS}, SEEN),
    ],
    ids=[
        "reads were seen",
        "all came from memory",
        "the device was not observed",
        "the disk is far smaller",
        "the disk is the larger in any case",
        "the code is known to decode",
        "the code is marked",
    ],
)
def test_it_is_not_doubted_where(tmp_path: Path, stages: dict[str, int], changes: dict[str, Any]) -> None:
    assert "mapped-reads" not in named(answered(tmp_path, stages), **changes)


def test_without_a_stall_there_is_nothing_to_blame(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=60, stages={"getitem": MS}, compute=80 * MS)))
    assert "mapped-reads" not in named(found, **SEEN)


COLD = {"tier": "ssd", "emulated_storage": False, "cache": "cold", "read_bytes": 1000}


def reading(tmp_path: Path, **storage: Any) -> Answer:
    """A run that waits for reads, and what is said of its storage."""
    plan = Plan(stages={"read": 60 * MS}, compute=5 * MS)
    return load(make_run(tmp_path / "run", plan, storage={"tier": "ssd", **storage}))


@pytest.mark.parametrize(
    ("told", "changes", "doubted"),
    [
        ({}, {"device_bytes": 1200}, False),
        ({}, {"device_bytes": 960}, False),
        ({}, {"device_bytes": 900}, True),
        ({"resident_share_before": 0.0}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 0.02}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 0.2}, {"device_bytes": 1200}, True),
        ({"resident_share_before": 0.2}, {"device_bytes": None}, True),
        ({"resident_share_before": 0.0}, {"device_bytes": None}, False),
        ({"resident_share_before": None}, {"device_bytes": 1200}, False),
        ({"resident_share_before": 1.0}, {"device_bytes": 0, "cache": "warm"}, False),
        ({}, {"device_bytes": 550, "cache_bytes": 4000, "data_bytes": 10_000}, True),
        ({}, {"device_bytes": 650, "cache_bytes": 4000, "data_bytes": 10_000}, False),
        ({}, {"device_bytes": 0, "cache_bytes": 4000, "data_bytes": 4000}, False),
        ({}, {"device_bytes": 0, "emulated_storage": True}, False),
    ],
)
def test_a_cold_run_that_was_not(
    tmp_path: Path, told: dict[str, Any], changes: dict[str, Any], doubted: bool
) -> None:
    found = reading(tmp_path, **told)
    assert ("page-cache" in named(found, **{"cache_bytes": 0, **COLD, **changes})) is doubted


@pytest.mark.parametrize("limited", [True, False])
def test_an_emulated_device_that_could_not_keep_its_pace_is_named(tmp_path: Path, limited: bool) -> None:
    emulator = {"served_ns": 900, "lost_ns": 100, "limited_by_emulator": limited}
    found = reading(tmp_path, emulated=True, emulator=emulator, name="nvme-gen3")
    assert found.attribution is not None and found.facts is not None
    said = {one.name: one for one in doubts_about(found.run, found.attribution, found.facts)}
    assert ("emulator-limited" in said) is limited
    if limited:
        assert "nvme-gen3 was slower than its model: 10 % of the time" in said["emulator-limited"].problem
        assert not said["emulator-limited"].decisive
