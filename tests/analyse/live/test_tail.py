"""Read a stream while it grows: what is new, what is recent, at a cost that does not grow with the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.live.tail import Tail
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.writer import TraceWriter


def lines_of(number: int) -> dict[str, list[object]]:
    return {
        "time_ns": [number * 10, number * 10 + 1],
        "worker": [0, 1],
        "stage": ["decode", f"stage:{number // 3}"],
        "stack": [None, f"a.py\t{number}\tf"],
        "samples": [1, 2],
    }


def test_what_is_read_piece_by_piece_is_what_was_written(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    tail = Tail(tmp_path / "run", "lines")
    assert tail.poll() == 0
    for number in range(12):
        writer.append("lines", lines_of(number))
        writer.flush()
        if number % 2:
            assert tail.poll() == 2
    assert tail.poll() == 0
    whole = load(tmp_path / "run").table("lines")
    assert tail.last(100).to_pylist() == whole.to_pylist()
    assert tail.last(2).to_pylist() == whole.to_pylist()[-4:]
    recent, batches = tail.since("time_ns", 101)
    assert (recent.to_pylist(), batches) == (whole.to_pylist()[-3:], 2)
    writer.close("complete")
    assert tail.poll() == 0, "the stream has gone"


def test_a_message_that_is_half_written_waits(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    for number in range(3):
        writer.append("lines", lines_of(number))
    writer.flush()
    whole = (tmp_path / "run" / "lines.arrows").read_bytes()
    other = tmp_path / "torn"
    other.mkdir()
    tail = Tail(other, "lines")
    read = 0
    for cut in range(0, len(whole) + 1, 97):
        (other / "lines.arrows").write_bytes(whole[:cut])
        read += tail.poll()
    (other / "lines.arrows").write_bytes(whole)
    assert read + tail.poll() == 3
    assert len(tail.last(3)) == 6
    writer.close("complete")


@pytest.mark.parametrize("flushes", [40, 400])
def test_a_look_at_the_end_decodes_the_end_alone(tmp_path: Path, flushes: int) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    for number in range(flushes):
        writer.append("lines", lines_of(number))
    writer.flush()
    tail = Tail(tmp_path / "run", "lines")
    assert tail.poll() == flushes
    table, batches = tail.since("time_ns", (flushes - 10) * 10)
    assert (len(table), batches) == (20, 10)
    decoded = sum(chunk._table is not None for chunk in tail.chunks)
    assert decoded == 11, "one more, to see that it is too old"
    writer.close("complete")
