"""Read a stream while it grows: what is new, what is recent, at a cost that does not grow with the run."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.live.tail import Tail
from pipeprof.errors import TraceError
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.writer import TraceWriter
from tests.factory import Plan, make_run


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


def damaged(content: bytes, name: str) -> bytes:
    match name:
        case "the schema":
            return content[:40] + b"\xff" * 40 + content[80:]
        case "a batch":
            head = 8 + int.from_bytes(content[4:8], "little")  # behind the schema and its length
            return content[: head + 50] + b"\xff" * 100 + content[head + 150 :]
        case _:
            return content[:8] + b"\xff\xff\xff\x7f" + content[12:]


@pytest.mark.parametrize("name", ["the schema", "a batch", "a message's head"])
def test_a_damaged_stream_is_one_error(tmp_path: Path, name: str) -> None:
    path = make_run(tmp_path / "run", Plan(batches=30)) / "steps.parquet"
    table, stream = pq.read_table(path), path.with_suffix(".arrows")
    with pa.ipc.new_stream(str(stream), table.schema) as file:
        file.write_table(table)
    stream.write_bytes(damaged(stream.read_bytes(), name))
    tail = Tail(tmp_path / "run", "steps")
    with pytest.raises(TraceError, match=r"steps\.arrows cannot be read"):
        tail.poll()
        tail.last(1)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "steps.arrows")
    with pytest.raises(TraceError, match="not a regular file"):
        Tail(tmp_path, "steps").poll()
