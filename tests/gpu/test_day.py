"""The day's script, on a device that is not there: every item runs through, and each is held to its time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.__main__ import main
from tests.gpu.day import Item, Place, take, there
from tests.gpu.items import ITEMS


@pytest.mark.slow
def test_the_whole_day_runs_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--fake", "--out", str(tmp_path / "day")])
    said = capsys.readouterr().out
    assert code == 0, said
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "day").glob("*.json")}
    assert set(kept) == {item.name for item in ITEMS}
    assert {each["status"] for each in kept.values()} == {"held"}
    assert kept["device"]["figures"]["kind"] == "fake"
    assert abs(kept["stall"]["figures"]["difference at load 1.5, points"]) <= 2
    assert "nvml" in (tmp_path / "day" / "summary.md").read_text()


def test_the_items_fit_into_ten_minutes() -> None:
    """Their own limits may come to more than 8 minutes together; what is left of those cuts the last ones."""
    assert sum(item.limit_s for item in ITEMS) < 600
    assert max(item.limit_s for item in ITEMS) <= 100


def outcomes(
    tmp_path: Path, *runs: Any, whole_s: float = 60.0, limit_s: float = 10.0
) -> list[tuple[str, str]]:
    items = [Item(f"item{number}", "made", limit_s, run) for number, run in enumerate(runs)]
    found = take(items, tmp_path / "day", True, lambda text: None, whole_s)
    return [(outcome.status, outcome.error) for outcome in found]


def test_whatever_becomes_of_an_item_the_next_runs(tmp_path: Path) -> None:
    def fails(place: Place) -> dict[str, Any]:
        raise ValueError("no such device")

    def vanishes(place: Place) -> dict[str, Any]:
        os._exit(7)

    def misses(place: Place) -> dict[str, Any]:
        return {"off by": 3.0, "held": False}

    def good(place: Place) -> dict[str, Any]:
        return {"kind": place.device.kind, "held": True}

    assert outcomes(tmp_path, fails, vanishes, misses, good) == [
        ("failed", "ValueError: no such device"),
        ("failed", "its process ended with 7"),
        ("missed", ""),
        ("held", ""),
    ]
    kept = json.loads((tmp_path / "day" / "item3.json").read_text())
    assert (kept["status"], kept["figures"]["kind"]) == ("held", "fake")
    assert "ValueError: no such device" in (tmp_path / "day" / "item0" / "output.txt").read_text()


def test_an_item_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    def hangs(place: Place) -> dict[str, Any]:
        if os.fork() == 0:
            (place.directory / "child").write_text(str(os.getpid()))
        time.sleep(60)
        return {}

    assert outcomes(tmp_path, hangs, limit_s=0.5) == [("out of time", "after its 0 s")]
    child = int((tmp_path / "day" / "item0" / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or _is_dead(child):
            return
        time.sleep(0.01)
    pytest.fail("its child is still there")


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_when_the_time_is_up_nothing_is_begun(tmp_path: Path) -> None:
    assert outcomes(tmp_path, lambda place: {}, whole_s=0.0) == [("no time left", "")]


@pytest.mark.slow
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if there():
        pytest.skip("there is a device here")
    assert main(["--out", str(tmp_path / "day")]) == 2
    assert "torch sees no device here" in capsys.readouterr().err
    assert not (tmp_path / "day").exists()
