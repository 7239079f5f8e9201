"""A JSON file with one record and the version of its schema, kept beside a run."""

from __future__ import annotations

import json
from pathlib import Path

from pipeprof.errors import TraceError
from pipeprof.record.decode import Dataclass, MisfitError, Record, decode, encode
from pipeprof.record.files import write_atomically
from pipeprof.record.plain_files import read_text


def read_record(path: Path, kind: type[Record], schema: int) -> Record | None:
    """Read a record; None without a file, and for one that is damaged or of another schema."""
    try:
        raw = json.loads(read_text(path))
        return decode(kind, raw) if raw["schema"] == schema else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, TraceError, MisfitError):
        return None


def write_record(path: Path, record: Dataclass, schema: int) -> None:
    """Write a record, whole or not at all. Raises `OSError` if it cannot be written."""
    write_atomically(path, json.dumps({"schema": schema, **encode(record)}, indent=1) + "\n")
