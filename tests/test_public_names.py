"""The front door: what `import pipeprof` gives, and what a type checker says of a user's script."""

from __future__ import annotations

import ast
from pathlib import Path

import pyarrow as pa
import pytest

import pipeprof
from tests.factory import Plan, make_run
from tests.type_checked import checked

USERS = """
from torch.utils.data import DataLoader, TensorDataset
import torch, pipeprof

data = TensorDataset(torch.zeros(3))
good = pipeprof.ProfiledDataLoader(data, batch_size=2, num_workers=3, lines=True)
share: float | None = good.verdict().stall_share
with pipeprof.profile(DataLoader(data)) as loader:
    loader.verdict()
    size: int | None = loader.batch_size
with pipeprof.profile([1, 2]) as numbers:
    first: int = next(iter(numbers))
rate: float | None = pipeprof.load("x").verdict.measured.throughput_samples_per_s
pipeprof.ProfiledDataLoader(data, numworkers=3)  # wrong
pipeprof.load("x").verdikt  # wrong
pipeprof.profile(loader, outt="x")  # wrong
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_users_script_is_checked(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    script = tmp_path / "train.py"
    script.write_text(USERS)
    said = checked(script, pytestconfig)
    wrong = [number for number, line in enumerate(USERS.splitlines(), 1) if line.endswith("# wrong")]
    found = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    assert found == set(wrong), said


def test_the_stub_has_every_public_name() -> None:
    stub = ast.parse(Path(pipeprof.__file__).with_suffix(".pyi").read_text())
    imported = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert imported == pipeprof._HOMES
    assert set(imported) == set(pipeprof.__all__) - {"__version__"}


def test_a_run_shows_itself(tmp_path: Path) -> None:
    run = pipeprof.load(make_run(tmp_path / "run", Plan(batches=30)))
    assert run.verdict.sentence in repr(run) and len(repr(run)) < 1000
    shown = run._repr_html_()
    assert "waiting for data" in shown and "<table>" in shown


def test_names_of_users_are_escaped_in_a_notebook(tmp_path: Path) -> None:
    run = pipeprof.load(make_run(tmp_path / "run", Plan(batches=30, stages={"stage:<b>": 5_000_000})))
    assert "<b>&" not in run._repr_html_() and "stage:<b>" not in run._repr_html_()


def test_tables_by_name(tmp_path: Path) -> None:
    run = pipeprof.load(make_run(tmp_path / "run", Plan(batches=30)))
    assert run.table("steps").num_rows == 30
    with pytest.raises(pipeprof.PipeprofError, match="did you mean stages"):
        run.table("stage")


def test_the_slowest_samples_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pipeprof.load(make_run(tmp_path / "run", Plan(batches=30)))
    columns = {"slowest_index": [7, -1, 9, 4], "slowest_ns": [5, 99, 8, 6], "worker": [0, 1, 1, -1]}
    monkeypatch.setattr(run.run, "table", lambda _: pa.table(columns))
    assert [each.sample for each in run.slowest()] == [9, 4, 7]
    assert run.slowest(1)[0] == (9, 8, 1, 2, None)
