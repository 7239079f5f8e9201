"""The packed columns, read back as the page's script reads them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.report.page import timeline, workers
from pipeprof.timeline import ints
from tests.factory import MS, US, Plan, S, make_run


def column(value: Any, dtype: str, count: int) -> np.ndarray[Any, Any]:
    if isinstance(value, (int, float)):
        return np.full(count, value, dtype=dtype)
    return np.frombuffer(base64.b64decode(value), dtype=dtype)


def packed(answer: Analysis) -> dict[str, Any]:
    found = workers.packed(answer)
    assert found is not None
    return found


def spans_of(found: dict[str, Any], batch: int) -> list[tuple[int, int, int | None, int]]:
    """(stage, start, sample, length) of one batch, in µs since its start, as the script walks them."""
    few = found["spans"]
    first = column(few["first"], "<u4", few["batches"] + 1)
    length, code = column(few["length"], "<u2", few["count"]), column(few["stage"], "u1", few["count"])
    sample = column(few["sample"], "<f8" if few["wide"] else "<i4", few["samples"])
    place = column(few["batch"], "<u4", few["batches"]).tolist().index(batch)
    seen = int((code[: first[place]] >= timeline.NEW_SAMPLE).sum()) - 1
    at, out = 0, []
    for j in range(first[place], first[place + 1]):
        seen += int(code[j] >= timeline.NEW_SAMPLE)
        stage = int(code[j]) & timeline.IDLE
        if stage != timeline.IDLE:
            out.append((stage, at, int(sample[seen]) if seen >= 0 else None, int(length[j])))
        at += int(length[j])
    return out


def test_times_and_sums_come_back(stalled: Analysis) -> None:
    found, t = packed(stalled), stalled.timeline
    assert found["kept"] == found["steps"] == len(t)
    batches = found["batches"]
    start, finish = (column(batches[name], "<u4", len(t)).astype(np.int64) for name in ("start", "finish"))
    assert np.abs((finish - start) * found["unit_ns"] - (t.finish_ns - t.start_ns)).max() <= found["unit_ns"]
    sums = column(batches["sums"], "<u4", 0).reshape(len(t), -1).sum(axis=1) * found["unit_ns"]
    assert np.abs(sums - (t.finish_ns - t.start_ns)).max() < 10 * found["unit_ns"]
    assert column(batches["step"], "<u4", len(t)).tolist() == t.step.tolist()


def test_single_spans_come_back_with_their_samples(stalled: Analysis) -> None:
    found = packed(stalled)
    names = [stage["name"] for stage in found["stages"]]
    table = stalled.run.table("spans")
    seq, start, wall, sample = (ints(table[name]) for name in ("seq", "start_ns", "wall_ns", "sample"))
    stages = table["stage"].to_pylist()
    batch_start = int(stalled.timeline.start_ns[10])
    mine = sorted((int(start[i]), i) for i in np.flatnonzero(seq == 10))
    read = spans_of(found, 10)
    assert len(read) == len(mine)
    for (at, i), (stage, begun, whose, length) in zip(mine, read, strict=True):
        assert names[stage] == stages[i]
        assert abs(begun * 1000 - (at - batch_start)) <= 1000
        assert abs(length * 1000 - wall[i]) <= 2000
        if sample[i] >= 0:
            assert whose == sample[i]


def test_a_span_longer_than_sixteen_bits_of_microseconds_is_kept_whole(tmp_path: Path) -> None:
    plan = Plan(batches=30, workers=1, batch_size=1, stages={"read": 300 * MS}, spans_every=1)
    found = packed(load(make_run(tmp_path / "run", plan)))
    assert sum(length for *_, length in spans_of(found, 3)) == 300_000


def test_a_long_run_keeps_stretches_around_its_longest_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MAX_BATCHES", 600)
    reads = [MS] * 1500
    reads[1000] = 2 * S
    plan = Plan(
        batches=1500, workers=2, stages={"read": reads, "decode": 2 * MS}, compute=5 * MS, spans_every=0
    )
    answer = load(make_run(tmp_path / "run", plan))
    found = packed(answer)
    steps = column(found["batches"]["step"], "<u4", found["kept"])
    assert found["kept"] <= 600
    assert 1000 in steps and 0 in steps
    assert found["jumps"][0]["step"] == 1000
    assert "Single batches are kept" in found["note"]
    level = column(found["bins"]["workers"], "u1", 0).reshape(2, 2, timeline.BINS) / 255
    walls = answer.attribution.stages.making if answer.attribution else {}
    whole = sum(float(stage.wall_ns.sum()) for stage in walls.values())
    assert level.sum() / timeline.BINS * found["length"] * found["unit_ns"] == pytest.approx(whole, rel=0.05)


def test_runs_longer_than_thirty_two_bits_of_microseconds_get_a_coarser_unit(tmp_path: Path) -> None:
    plan = Plan(batches=25, workers=1, stages={"read": 400 * S}, compute=10 * US)
    found = packed(load(make_run(tmp_path / "run", plan)))
    assert found["unit_ns"] > 1000
    finish = column(found["batches"]["finish"], "<u4", 25)
    assert (np.diff(finish.astype(np.int64)) > 0).all()


def test_the_span_budget_goes_to_the_longest_waits(
    stalled: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MAX_SPANS", 250)
    few = packed(stalled)["spans"]
    assert few["batches"] >= 1
    assert few["count"] <= 300
