"""Takes a recorded run and leaves out what would not be known had some of its batches been unprobed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeprof.record.schema import MAIN_PROCESS, TABLES

_KNOWN = ("loader", "epoch", "seq", "worker", "samples", "dispatch_ns", "start_ns", "finish_ns")
"""Columns of an unprobed batch that are known."""


def unprobe(run: Path, to: Path, every: int = 16, block: int = 4) -> Path:
    """Copy `run`, with the last `block` of each `every` batches of each worker made unprobed."""
    shutil.copytree(run, to)
    batches = pq.read_table(to / "batches.parquet")
    worker, start = (np.array(batches[name].to_pylist()) for name in ("worker", "start_ns"))
    loader = np.array(batches["loader"].to_pylist())
    marked = np.zeros(len(batches), bool)
    for one, of in {*zip(worker.tolist(), loader.tolist(), strict=True)}:
        mine = np.flatnonzero((worker == one) & (loader == of))
        order = mine[np.argsort(start[mine], kind="stable")]
        marked[order[np.arange(len(order)) % every >= every - block]] = True
    columns = {}
    for field in TABLES["batches"]:
        held = field.name in batches.column_names
        values = batches[field.name].to_pylist() if held else [None] * len(batches)
        if field.name == "unprobed":
            values = [True if each else None for each in marked]
        elif field.name not in _KNOWN:
            values = [None if gone else value for gone, value in zip(marked, values, strict=True)]
        columns[field.name] = pa.array(values, field.type)
    pq.write_table(pa.table(columns), to / "batches.parquet")
    names = ("loader", "epoch", "seq")
    of_batches = zip(*(batches[name].to_pylist() for name in names), strict=True)
    keys = {key for key, gone in zip(of_batches, marked, strict=True) if gone}
    for rows in ("stages", "spans"):
        path = to / f"{rows}.parquet"
        if not path.exists():
            continue
        table = pq.read_table(path)
        scope = table["scope"].to_pylist() if "scope" in table.column_names else [0] * len(table)
        of_rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        kept = [where == 1 or key not in keys for where, key in zip(scope, of_rows, strict=True)]
        pq.write_table(table.filter(pa.array(kept)), path)
    return to


def unprobe_loop(run: Path, every: int = 5, block: int = 4) -> Path:
    """Leave out of `run` what is not known of the last `block` of each `every` steps of the loop.

    Samples and counts of the loop's thread become fewer; those of the thread that pins do not.
    """
    steps = pq.read_table(run / "steps.parquet")
    marked = np.arange(len(steps)) % every >= every - block
    probed_share = 1 - marked[~np.array(steps["warmup"].to_pylist())].mean()
    steps = with_column(steps, "steps", "unprobed", [True if each else None for each in marked])
    pq.write_table(steps, run / "steps.parquet")
    for table, names in (("lines", ("wall_ns", "cpu_ns")), ("counters", ("value",))):
        path = run / f"{table}.parquet"
        if not path.exists():
            continue
        rows = pq.read_table(path)
        kinds = rows["stage" if table == "lines" else "counter"].to_pylist()
        fewer = [
            worker == MAIN_PROCESS and (table == "lines" or (kind.startswith("gil.") and ".pin" not in kind))
            for worker, kind in zip(rows["worker"].to_pylist(), kinds, strict=True)
        ]
        for name in names:
            values = [
                round(value * probed_share) if less else value
                for value, less in zip(rows[name].to_pylist(), fewer, strict=True)
            ]
            rows = with_column(rows, table, name, values)
        pq.write_table(rows, path)
    return run


def unprobe_steps(run: Path, every: int, block: int, first: int) -> None:
    """Mark `block` of each `every` steps as unprobed, after `first` of them, and forget their CPU time."""
    steps = pq.read_table(run / "steps.parquet")
    marked = [n >= first and (n - first) % every < block for n in range(len(steps))]
    steps = with_column(steps, "steps", "unprobed", [gone or None for gone in marked])
    if "next_cpu_ns" in steps.column_names:
        known = zip(marked, steps["next_cpu_ns"].to_pylist(), strict=True)
        steps = with_column(steps, "steps", "next_cpu_ns", [None if gone else ns for gone, ns in known])
    pq.write_table(steps, run / "steps.parquet")


def with_column(rows: pa.Table, table: str, name: str, values: Sequence[object]) -> pa.Table:
    """Return rows of a table with other values in one of its columns."""
    kept = rows.drop_columns([name]) if name in rows.column_names else rows
    field = TABLES[table].field(name)
    return kept.append_column(field, pa.array(values, field.type))
