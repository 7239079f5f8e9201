"""Files of a run directory that no writer of ours left so: each is one clear error; none is waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import analyse
from pipeprof.errors import TraceError
from pipeprof.record import tables
from pipeprof.record.reader import load
from pipeprof.record.tables import MOST_EPOCHS, ROWS_OF_ANY_FILE
from pipeprof.report import run_list
from tests.factory import Plan, make_run

COLUMNS = ["step", "loader", "epoch", "seq", "take_ns"]
COMPLETE = '{"schema": 1, "status": "complete", "name": "good"}'


def _column(
    name: str, values: Callable[[int], list[int]], kind: pa.DataType
) -> Callable[[pa.Table], pa.Table]:
    """A table whose column `name` holds other values."""
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array(values(len(table)), kind)
    )


DAMAGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no loader": lambda table: table.drop(["loader"]),
    "a loader below 0": _column("loader", lambda n: [-1] * n, pa.int16()),
    "an epoch that cannot be": _column("epoch", lambda n: [0] * (n - 1) + [2**31 - 1], pa.int32()),
    "a batch's number beyond all runs": _column("seq", lambda n: [*range(n - 1), 2**63 - 1], pa.int64()),
    "a number for a batch that does not fit": _column("seq", lambda n: [2**63] * n, pa.uint64()),
    "a time that cannot be": _column("take_ns", lambda n: [*range(n - 1), 2**62], pa.int64()),
    "a column twice": lambda table: table.append_column("seq", table["seq"]),
    "a column of a struct": lambda table: table.set_column(
        table.column_names.index("step"), "step", pa.array([{"a": 1}] * len(table))
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_with_what_is_no_record_is_refused(tmp_path: Path, damage: str) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "steps.parquet"
    pq.write_table(DAMAGES[damage](pq.read_table(path)), path)
    run = load(tmp_path / "run")
    with pytest.raises(TraceError, match=r"steps\.parquet cannot be read"):
        run.table("steps")
    with pytest.raises(TraceError, match=r"steps\.parquet cannot be read"):
        list(run.pieces("steps", COLUMNS))


def test_more_rows_than_a_file_has_room_for_are_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "events.parquet"
    table = pq.read_table(path)
    piece = pa.concat_tables([table.slice(0, 1)] * 100).combine_chunks()
    many = pa.concat_tables([piece] * (ROWS_OF_ANY_FILE // 100) + [table.slice(0, 1)])
    pq.write_table(many.combine_chunks(), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(TraceError, match="2,000,001 rows; 2,000,000 are the most"):
        load(tmp_path / "run").table("events")


def test_more_text_than_may_be_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "events.parquet"
    table = pq.read_table(path)
    rows = 300
    details = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(["x" * (1 << 20)]))
    many = pa.concat_tables([table.slice(0, 1)] * rows).combine_chunks()
    pq.write_table(many.set_column(many.column_names.index("detail"), "detail", details), path)
    with pytest.raises(TraceError, match="detail holds more than 256 MiB"):
        load(tmp_path / "run").table("events")


def test_a_file_that_unpacks_to_more_than_a_run_holds_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "UNPACKED_OF_ANY_FILE", 8 << 20)
    path = make_run(tmp_path / "run", Plan(batches=10)) / "events.parquet"
    table = pq.read_table(path).slice(0, 1)
    at = table.column_names.index("detail")
    long = table.set_column(at, "detail", pa.array(["x" * (9 << 20)]))
    pq.write_table(long, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(TraceError, match=r"events\.parquet cannot be read: it unpacks to"):
        load(tmp_path / "run").table("events")


@pytest.mark.parametrize("name", ["steps", "events"])
def test_a_compressed_stream_is_refused_unread(tmp_path: Path, name: str) -> None:
    """Ours are not: one may hold a thousand times its size. That of the events has a dictionary first."""
    path = make_run(tmp_path / "run", Plan(batches=10)) / f"{name}.parquet"
    table = pq.read_table(path)
    path.unlink()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(str(path.with_suffix(".arrows")), table.schema, options=options) as stream:
        stream.write_table(pa.concat_tables([table] * 90).combine_chunks())
    with pytest.raises(TraceError, match=rf"{name}\.arrows is compressed"):
        load(tmp_path / "run").table(name)


def test_a_run_that_took_no_time_is_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=30, accelerator="none")) / "steps.parquet"
    table = pq.read_table(path)
    for name in (name for name in table.column_names if name.endswith("_ns")):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array([0] * len(table), pa.int64()))
    pq.write_table(table, path)
    assert analyse(load(tmp_path / "run")).verdict.cause


def test_batches_without_samples_are_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=30)) / "steps.parquet"
    pq.write_table(_column("samples", lambda n: [0] * n, pa.int32())(pq.read_table(path)), path)
    assert analyse(load(tmp_path / "run")).verdict.cause


def test_a_column_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "events.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("qqqq", table["loader"]), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"qqqq", b"\xec\xec\xec\xec"))
    with pytest.raises(TraceError, match="its names are not text"):
        load(tmp_path / "run").table("events")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "events.parquet"
    table = pq.read_table(path)
    bad = pa.array([b"\x8b\xff"] * len(table), pa.binary()).view(pa.string())
    at = table.column_names.index("detail")
    path.unlink()
    with pa.ipc.new_stream(str(path.with_suffix(".arrows")), table.schema) as stream:
        stream.write_table(table.set_column(at, "detail", bad))
    with pytest.raises(TraceError, match=r"events\.arrows cannot be read"):
        load(tmp_path / "run").table("events")


def test_as_many_epochs_as_may_be_are_read(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", Plan(batches=10)) / "steps.parquet"
    last = _column("epoch", lambda n: [0] * (n - 1) + [MOST_EPOCHS], pa.int32())
    pq.write_table(last(pq.read_table(path)), path)
    assert load(tmp_path / "run").table("steps")["epoch"][-1].as_py() == MOST_EPOCHS


@pytest.mark.parametrize("name", ["run.json", "steps.parquet", "steps.arrows"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    if name != "run.json":
        (tmp_path / "run.json").write_text(COMPLETE)
    os.mkfifo(tmp_path / name)
    with pytest.raises(TraceError, match=f"{name} is not a regular file"):
        load(tmp_path).table("steps")


def test_a_device_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").symlink_to("/dev/zero")
    with pytest.raises(TraceError, match="not a regular file"):
        load(tmp_path)


def test_a_run_json_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(TraceError, match="larger than 64 MiB"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"schema": true}', '{"schema": 1, "pid": ' + "9" * 5000]
)
def test_one_unreadable_run_does_not_hide_the_others(tmp_path: Path, text: str) -> None:
    for name, content in (("bad", text), ("good", COMPLETE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    assert {entry.name: entry.status for entry in run_list.entries(tmp_path)} == {
        "good": "complete",
        "bad": "unreadable",
    }


@pytest.mark.parametrize(
    "text", ['{"schema": 1}', '{"schema": 1, "status": "running", "pid": 1180591620717411303424}']
)
def test_a_run_that_does_not_say_how_it_ended_is_partial(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert load(tmp_path).status == "partial"


@pytest.mark.parametrize("way", ["whole", "in pieces"])
def test_a_run_that_ends_while_it_is_read_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    directory = make_run(tmp_path / "run", Plan(batches=10))
    run, look, looks = load(directory), tables.table_file, []

    def one_look_before_the_end(place: Path, name: str) -> object:
        looks.append(name)
        return directory / f"{name}.arrows" if len(looks) == 1 else look(place, name)

    monkeypatch.setattr(tables, "table_file", one_look_before_the_end)
    found = run.table("steps") if way == "whole" else next(run.pieces("steps", COLUMNS))
    assert len(found) == 10
    assert looks == ["steps", "steps"]


def test_a_file_that_the_system_does_not_give_is_told_with_its_reason(tmp_path: Path) -> None:
    refusal = OSError(5, "Input/output error")
    with pytest.raises(TraceError, match="cannot be read: Input/output error"), tables.refused(tmp_path):
        raise refusal
