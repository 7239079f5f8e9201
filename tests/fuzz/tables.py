"""Damage to the tables of a run directory: to their values, their types, and their files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from tests.fuzz.values import HOSTILE, damage_bytes

BOMB_ROWS: Final = 3_000_000
INTEGERS: Final = (-1, 0, 1, 2, 127, 2**15 - 1, 2**15, 2**31 - 1, 2**31, 2**53, 2**63 - 1, -(2**15), -(2**63))
NAMES: Final = (
    "",
    "read",
    "decode",
    "transform:",
    ":",
    HOSTILE,
    "x" * 70_000,
    "storage",
    "a\tb\tc\nd",
    "stage:é",
)
KINDS: Final[tuple[Any, ...]] = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.null(), pa.timestamp("ns"), pa.date32()),
    *(pa.duration("ns"), pa.decimal128(38, 2), pa.list_(pa.int64()), pa.struct([("a", pa.int64())])),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.int64()),
)


def _filled(value: Any, kind: Any, rows: int) -> Any:
    """Return a column of one value, or of its nearest."""
    try:
        return pa.array([value] * rows, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.nulls(rows, kind)


def _of_kind(random: Random, kind: Any, rows: int) -> Any:
    if pa.types.is_dictionary(kind):
        names = [random.choice(NAMES) for _ in range(rows)]
        return (
            pa.array(names).dictionary_encode().cast(kind, safe=False)
            if kind.value_type == pa.string()
            else (
                pa.DictionaryArray.from_arrays(
                    pa.array([0] * rows, pa.int8()), pa.array([random.choice(INTEGERS)])
                )
            )
        )
    if pa.types.is_list(kind):
        return _filled([1, 2], kind, rows)
    if pa.types.is_struct(kind):
        return _filled({"a": 1}, kind, rows)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _filled(random.choice(NAMES), kind, rows)
    if pa.types.is_floating(kind):
        return _filled(random.choice((0.0, -1.0, 1e308, float("nan"), float("inf"), 0.5)), kind, rows)
    return _filled(random.choice(INTEGERS), kind, rows)


def damage_column(random: Random, table: Any) -> Any:  # noqa: PLR0911
    """Return the table with one column otherwise: gone, double, of another type or other values."""
    if table.num_columns == 0:
        return table
    index = random.randrange(table.num_columns)
    name, column, rows = table.column_names[index], table.column(index), len(table)
    match random.randrange(14):
        case 0:
            return table.remove_column(index)
        case 1:
            return table.append_column(name, column)
        case 2:
            return table.rename_columns(
                [
                    random.choice((HOSTILE, "", "step", "x")) if each == name else each
                    for each in table.column_names
                ]
            )
        case 3 | 4:
            kind = random.choice(KINDS)
            try:
                changed = (
                    column.cast(kind, safe=False) if random.random() < 0.5 else _of_kind(random, kind, rows)
                )
            except (pa.ArrowException, TypeError, ValueError):
                changed = _of_kind(random, kind, rows)
            return table.set_column(index, name, changed)
        case 5:
            return table.set_column(index, name, _of_kind(random, column.type, rows))
        case 6:
            other = random.randrange(table.num_columns)
            return table.set_column(index, name, table.column(other))
        case 7:
            return table.set_column(index, name, pa.nulls(rows, column.type))
        case _:
            return table.set_column(index, name, _values(random, column))


def _values(random: Random, column: Any) -> Any:
    """Return a column of the same type with some values otherwise."""
    kind, values = column.type, column.to_pylist()
    if not values:
        return column
    how = random.randrange(7)
    if how == 0:
        random.shuffle(values)
    elif how == 1:
        values.reverse()
    elif how == 2 and pa.types.is_integer(kind):
        factor = random.choice((-1, 0, 1_000, 10**6, 10**9))
        values = [None if value is None else value * factor for value in values]
    elif how == 3 and pa.types.is_integer(kind):
        offset = random.choice((-(10**12), 10**12, 10**15, -(2**62), 2**62))
        values = [None if value is None else value + offset for value in values]
    else:
        text = pa.types.is_dictionary(kind) or pa.types.is_string(kind)
        for _ in range(random.choice((1, 1, 3, 20))):
            value = random.choice((None, *NAMES)) if text else random.choice((None, *INTEGERS))
            values[random.randrange(len(values))] = value
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return column


def damage_rows(random: Random, table: Any) -> Any:
    """Return the table with its rows otherwise: fewer, more, or in another order."""
    rows = len(table)
    match random.randrange(6):
        case 0:
            return table.slice(0, 0)
        case 1:
            return table.slice(random.randrange(rows + 1), random.choice((1, 2, rows)))
        case 2:
            return pa.concat_tables([table] * random.choice((2, 2, 10, 60)))
        case 3:
            return table.take(
                pa.array(np.array(random.choices(range(rows), k=rows) if rows else [], np.int64))
            )
        case 4:
            return table.take(pa.array(np.arange(rows)[::-1]))
        case _:
            return table.select(random.sample(table.column_names, k=random.randrange(table.num_columns + 1)))


def write(random: Random, table: Any, path: Path) -> None:
    """Write a table as a whole or a torn file of either kind; now and then the file itself is damaged."""
    stream = random.random() < 0.15
    path = path.with_suffix(".arrows") if stream else path
    try:
        if stream:
            options = pa.ipc.IpcWriteOptions(compression=random.choice((None, None, "zstd")))
            with pa.ipc.new_stream(str(path), table.schema, options=options) as file:
                file.write_table(table, max_chunksize=7)
        else:
            pq.write_table(table, path, compression=random.choice(("zstd", "snappy", "none")))
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError):  # no such file can be
        path.write_bytes(b"PAR1" + random.randbytes(40) + b"PAR1")
    if random.random() < 0.2:
        path.write_bytes(damage_bytes(random, path.read_bytes()))


def bomb(random: Random, table: Any, path: Path) -> None:
    """Write many rows of one row's values, small on disk."""
    piece = pa.concat_tables([table.slice(0, 1)] * 1_000).combine_chunks()
    pieces = pa.concat_tables([piece] * (BOMB_ROWS // 1_000)).combine_chunks()
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(random.choice((1, 2, 10))):
            writer.write_table(pieces, row_group_size=BOMB_ROWS)


def replace_file(random: Random, directory: Path, path: Path) -> None:
    """Put something else in a table's place: another table, nothing, a directory, a FIFO, a device."""
    match random.randrange(7):
        case 0:
            other = random.choice(sorted(directory.glob("*.parquet")) or [directory / "run.json"])
            path.write_bytes(other.read_bytes())
        case 1:
            path.write_bytes(b"")
        case 2:
            path.mkdir()
        case 3:
            os.mkfifo(path)
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            path.symlink_to(path.name)
        case _:
            path.symlink_to("/nowhere")


Damage = Callable[[Random, Any], Any]


def damage_table(random: Random, directory: Path, tables: dict[str, Any]) -> None:
    """Damage one or two of the tables in a run directory, which holds `tables`."""
    for name in random.sample(sorted(tables), k=random.choice((1, 1, 1, 2))):
        path = directory / f"{name}.parquet"
        path.unlink()  # it is linked
        dice = random.random()
        if dice < 0.002:
            bomb(random, tables[name], path)
        elif dice < 0.03:
            replace_file(random, directory, path)
        else:
            table = tables[name]
            for _ in range(random.choice((1, 1, 2, 4))):
                damage: Damage = damage_column if random.random() < 0.75 else damage_rows
                with suppress(pa.ArrowException, KeyError, TypeError, ValueError):  # no such table can be
                    table = damage(random, table)
            write(random, table, path)


def damage_stream(random: Random, path: Path, table: Any) -> None:
    """Damage the stream of a table: its bytes, its values, its rows, or what lies in its place."""
    dice = random.random()
    if dice < 0.04:
        path.unlink()
        replace_file(random, path.parent, path)
    elif dice < 0.5:
        path.write_bytes(damage_bytes(random, path.read_bytes()))
    else:
        with suppress(pa.ArrowException, KeyError, TypeError, ValueError):  # no such table can be
            table = damage_column(random, table) if random.random() < 0.75 else damage_rows(random, table)
        compression = random.choice((None, None, None, "zstd", "lz4"))
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with (
            suppress(pa.ArrowException, TypeError),
            pa.ipc.new_stream(str(path), table.schema, options=options) as stream,
        ):
            stream.write_table(table, max_chunksize=7)
