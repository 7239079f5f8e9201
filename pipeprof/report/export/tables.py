"""The record for other programs: every table as CSV, Parquet or JSON, for complete and for torn runs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from pipeprof.errors import TraceError
from pipeprof.record.reader import Run
from pipeprof.record.schema import TABLES


def _csv(table: pa.Table, path: Path) -> None:
    from pyarrow import csv

    csv.write_csv(table, path)


def _parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def _json(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, batch in enumerate(table.to_batches(max_chunksize=10_000)):
            rows = (json.dumps(row, ensure_ascii=False) for row in _finite(batch.to_pylist()))
            file.write((",\n" if number else "\n") + ",\n".join(rows))
        file.write("\n]\n")


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return NaN and infinities as null: JSON has neither."""
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                row[key] = None
    return rows


WRITERS: Final[dict[str, Callable[[pa.Table, Path], None]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
}


def write(run: Run, answer: dict[str, Any], form: str, directory: Path) -> list[Path]:
    """Write each table as `<table>.<form>`, with `meta.json` (run.json) and `answer.json` beside them.

    The files appear all together or not at all. Raises `TraceError` if the directory exists or cannot be
    written.
    """
    if directory.exists():
        raise TraceError(f"{directory} exists already", "choose another --out")
    temporary = directory.with_name(f".{directory.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name in TABLES:
            WRITERS[form](plain(run.table(name)), temporary / f"{name}.{form}")
        for name, content in (("meta", run.meta.as_json()), ("answer", answer)):
            (temporary / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(directory)
    except OSError as error:
        raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(directory.iterdir())


def plain(table: pa.Table) -> pa.Table:
    """Return the table with dictionary columns as plain text."""
    fields = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))
