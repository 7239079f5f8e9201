"""Claims of the lesson that once contradicted their own numbers, from made runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeprof.lesson.claims import compute, data
from pipeprof.lesson.claims.claim import Claim
from pipeprof.lesson.claims.data import alike, moves
from pipeprof.lesson.results import read
from tests.factory import MS, Plan, make_run
from tests.lesson.made import make_lesson


def made(directory: Path, plans: dict[str, Plan]) -> Path:
    """Make a lesson's directory with these runs alone."""
    for name, plan in plans.items():
        make_run(directory / name, plan, name=name)
    head = {"schema": 1, "quick": True, "created_at": "2026-01-01T00:00:00+00:00", "missed": {}, "errors": {}}
    (directory / "lesson.json").write_text(json.dumps(head))
    return directory


def with_decoding(times: tuple[int, ...]) -> Plan:
    """Plan of a loop that decodes by itself, each batch for one of these times in ms."""
    stages = {"decode": [each * MS for each in times]}
    return Plan(batches=60, workers=0, stages=stages, compute=64 * MS, synchronises=True)


def devices(tmp_path: Path, nvme: tuple[int, ...]) -> Claim:
    plans = {
        "1_hdd": with_decoding((300,)),
        "2_ssd": with_decoding((38, 40, 45)),
        "2_nvme": with_decoding(nvme),
    }
    return data.devices(read(made(tmp_path / "lesson", plans)))


def test_a_faster_drive_that_gains_nothing_is_told_to_gain_nothing(tmp_path: Path) -> None:
    claim = devices(tmp_path, (39, 41, 44))
    assert "no difference beyond noise" in claim.more[0]
    assert re.fullmatch(
        r"Waiting falls from .* \(hard disk\) to .* \(SSD\)\. NVMe adds nothing\.", claim.short
    )


def test_a_faster_drive_whose_run_waited_more_is_not_blamed(tmp_path: Path) -> None:
    claim = devices(tmp_path, (60, 61))
    assert "comes from this machine's cores" in claim.more[0] and claim.short.endswith("NVMe adds nothing.")


def test_a_faster_drive_that_helps_needs_no_excuse(tmp_path: Path) -> None:
    claim = devices(tmp_path, (3, 4))
    assert not claim.more and claim.short.endswith("(NVMe SSD).")


def test_another_network_is_no_rung_of_the_ladder(tmp_path: Path) -> None:
    claim = compute.accelerators(read(make_lesson(tmp_path / "lesson", only=("6_accelerators",))))
    assert "B200" not in claim.answer and "B200" not in claim.short
    assert any("B200" in text and "another network" in text for text in claim.more)
    assert any("B200" in row.cells[0] for row in claim.tables[0].rows)


def test_a_copy_that_costs_nothing_is_as_good_as_none(tmp_path: Path) -> None:
    copy = {"5_copy_pageable": 12, "5_copy_pinned": 6, "5_copy_overlapped": 0, "5_copy_none": 0}
    plans = {
        name: Plan(
            batches=60, workers=4, stages={"read": MS}, compute=60 * MS, copy=ms * MS, synchronises=True
        )
        for name, ms in copy.items()
    }
    claim = data.copies(read(made(tmp_path / "lesson", plans)))
    assert re.fullmatch(
        r"Copying from ordinary memory costs 1\d% of the time, copied ahead nothing\.", claim.short
    )
    assert any("as much as with nothing to copy" in text for text in claim.more)


def test_waiting_moves_as_its_numbers_do(tmp_path: Path) -> None:
    plans = {"slow": with_decoding((200,)), "quick": with_decoding((20,))}
    runs = read(made(tmp_path / "lesson", plans)).runs
    slow, quick = runs["slow"], runs["quick"]
    assert not alike(slow, quick) and alike(quick, quick)
    assert moves([("before", slow), ("after", quick)]).startswith("Waiting falls from")
    assert moves([("before", quick), ("after", slow)]).startswith("Waiting rises from")
