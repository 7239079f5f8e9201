from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import Analysis
from pipeprof.errors import TraceError
from pipeprof.record.schema import TABLES
from pipeprof.report.export import tables


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
@pytest.mark.parametrize("name", ["hostile", "bare", "torn"])
def test_every_table_comes_out_whole(odd: dict[str, Analysis], name: str, form: str, tmp_path: Path) -> None:
    answer = odd[name]
    tables.write(answer.run, answer.verdict.as_dict(), form, tmp_path / "out")
    for table in TABLES:
        path, rows = tmp_path / "out" / f"{table}.{form}", len(answer.run.table(table))
        if form == "csv":
            with path.open(newline="") as file:
                assert len(list(csv.DictReader(file))) == rows
        elif form == "json":
            assert len(json.loads(path.read_text())) == rows
        else:
            assert pq.read_table(path).num_rows == rows


def test_values_survive(odd: dict[str, Analysis], tmp_path: Path) -> None:
    run = odd["hostile"].run
    tables.write(run, {}, "json", tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "stages.json").read_text())
        == tables.plain(run.table("stages")).to_pylist()
    )


def test_nothing_is_overwritten(odd: dict[str, Analysis], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TraceError, match="exists already"):
        tables.write(odd["bare"].run, {}, "csv", tmp_path / "out")


def test_a_failure_leaves_nothing(
    odd: dict[str, Analysis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(tables.WRITERS, "csv", full)
    with pytest.raises(TraceError, match="No space left"):
        tables.write(odd["bare"].run, {}, "csv", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
