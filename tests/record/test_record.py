"""The record: written in one process, read in another, torn at any byte."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from pipeprof.errors import TraceError
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import boot_id, load
from pipeprof.record.schema import SCHEMA_VERSION, TABLES
from pipeprof.record.writer import TraceWriter
from pipeprof.timeline import NOT_OBSERVED, measured_window, read_timeline
from tests.factory import MS, Plan, make_run

KEY = {"loader": [0], "epoch": [0], "seq": [0]}


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = load(make_run(tmp_path / "run", Plan(batches=40, workers=2)))
    timeline = read_timeline(run)
    assert run.status == "complete"
    assert len(timeline) == 40
    assert (timeline.worker == [k % 2 for k in range(40)]).all()
    assert (timeline.previous[2:] == range(38)).all()
    assert (timeline.previous[:2] == -1).all()
    assert (timeline.take_ns >= timeline.finish_ns).all()
    assert (timeline.arrival_ns == NOT_OBSERVED).all()


def test_every_table_is_parquet_after_closing(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    assert pq.read_table(directory / "steps.parquet").num_rows == 120
    assert not list(directory.glob("*.arrows"))


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(TraceError, match="already holds a run"):
        make_run(tmp_path / "run")


def test_what_was_not_written_is_null(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    writer.append("steps", {**KEY, "step": [0], "take_ns": [5]})
    writer.close("complete")
    table = load(tmp_path / "run").table("steps")
    assert table["take_ns"].to_pylist() == [5]
    assert table["compute_end_ns"].to_pylist() == [None]


def test_names_may_change_from_flush_to_flush(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    for name in ("read", "decode", "a user's own"):
        key = {column: values * 2 for column, values in KEY.items()}
        writer.append("stages", {**key, "stage": [name, "collate"], "wall_ns": [1, 2]})
        writer.flush()
    assert load(tmp_path / "run").table("stages")["stage"].to_pylist()[::2] == [
        "read",
        "decode",
        "a user's own",
    ]
    writer.close("complete")
    assert load(tmp_path / "run").table("stages")["stage"].to_pylist()[::2] == [
        "read",
        "decode",
        "a user's own",
    ]


def test_columns_that_an_older_run_lacks_are_null_in_a_torn_one_too(tmp_path: Path) -> None:
    TraceWriter(tmp_path, RunMeta())
    older = pa.schema([field for field in TABLES["batches"] if field.name != "shard"])
    with pa.ipc.new_stream(tmp_path / "batches.arrows", older) as stream:
        keys = {name: pa.array([0, 1], older.field(name).type) for name in KEY}
        row = [keys.get(field.name, pa.nulls(2, field.type)) for field in older]
        stream.write_batch(pa.record_batch(row, schema=older))
    assert load(tmp_path).table("batches")["shard"].to_pylist() == [None, None]
    (piece,) = load(tmp_path).pieces("batches", ["worker", "shard"])
    assert piece["shard"].to_pylist() == [None, None]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from pipeprof.record.meta import RunMeta
from pipeprof.record.writer import TraceWriter
writer = TraceWriter(Path(sys.argv[1]), RunMeta())
for step in range(10**9):
    writer.append("steps", {"loader": [0], "epoch": [0], "seq": [step], "step": [step], "take_ns": [step]})
    writer.flush()
    if step == 100:
        print("written", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a zombie by /proc")
def test_a_run_whose_process_nobody_has_waited_for_is_partial(tmp_path: Path) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    TraceWriter(tmp_path / "run", RunMeta(pid=pid))
    try:
        assert load(tmp_path / "run").status == "partial"
    finally:
        os.waitpid(pid, 0)


def test_a_killed_run_is_partial_and_keeps_its_rows(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path / "run")], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0], "nothing was written"
        finally:
            process.kill()
    run = load(tmp_path / "run")
    assert run.status == "partial"
    assert run.table("steps")["step"].to_pylist()[:101] == list(range(101))


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ({}, "running"),
        ({"host": socket.gethostname(), "boot_id": boot_id()}, "running"),
        ({"host": "another-node", "boot_id": boot_id()}, "partial"),
        ({"host": socket.gethostname(), "boot_id": "before-it-was-started-anew"}, "partial"),
    ],
)
def test_another_machines_process_is_not_looked_for_among_ours(
    tmp_path: Path, where: dict[str, str], status: str
) -> None:
    """Its number is that of a process here, which lives: this test's."""
    TraceWriter(tmp_path / "run", RunMeta(pid=os.getpid(), **where))
    assert load(tmp_path / "run").status == status


def test_a_stream_torn_at_any_byte_reads_up_to_the_tear(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    for step in range(4):
        writer.append("steps", {**KEY, "step": [step]})
    writer.flush()
    stream = tmp_path / "run" / "steps.arrows"
    whole = stream.read_bytes()
    seen = set()
    for size in range(0, len(whole), 7):
        stream.write_bytes(whole[:size])
        rows = load(tmp_path / "run").table("steps").num_rows
        assert rows <= 4
        seen.add(rows)
    assert seen >= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no run"),
        ("{", "cannot be read"),
        ("[]", "not a run of pipeprof"),
        (json.dumps({"schema": SCHEMA_VERSION + 1}), "newer pipeprof"),
    ],
)
def test_what_is_no_run_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(TraceError, match=message):
        load(tmp_path)


def test_the_window_begins_when_the_device_left_the_warm_up(tmp_path: Path) -> None:
    plan = Plan(batches=30, warmup=10, compute=50 * MS, stages={"decode": MS})
    timeline = read_timeline(load(make_run(tmp_path / "run", plan)))
    window = measured_window(timeline)
    assert window is not None
    assert window.start_ns == timeline.compute_end_ns[9]
    assert window.wall_ns == 20 * 50 * MS


def test_without_a_device_a_step_ends_with_the_next_request(tmp_path: Path) -> None:
    plan = Plan(batches=30, warmup=10, accelerator="none")
    timeline = read_timeline(load(make_run(tmp_path / "run", plan)))
    window = measured_window(timeline)
    assert window is not None
    assert window.start_ns == timeline.request_ns[10]
