"""The cell magic, in a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

SETUP = """
import time, torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.zeros(200, 2)), batch_size=2)
%load_ext pipeprof
"""
LOOP = """%%pipeprof
seen = 0
for batch in loader:
    seen += 1
    time.sleep(0.003)
"""
BROKEN = """%%pipeprof
for batch in loader:
    raise ValueError("mine")
"""


@pytest.fixture
def run_cells(tmp_path: Path) -> Any:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")

    def run(*cells: str) -> list[Any]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = nbclient.NotebookClient(
            notebook, timeout=200, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
        return list(notebook.cells)

    return run


def texts(cell: Any) -> str:
    shown = [
        "".join([output.get("text", ""), str(output.get("data", "")), str(output.get("ename", ""))])
        for output in cell.outputs
    ]
    return "\n".join(shown)


def test_a_cell_shows_where_its_time_went(run_cells: Any, tmp_path: Path) -> None:
    cells = run_cells(SETUP, LOOP, "print(seen)", LOOP, "%%pipeprof\nprint(1)", BROKEN, "print(seen)")
    assert "text/html" in texts(cells[1]) and "waiting for data" in texts(cells[1])
    assert texts(cells[2]).strip() == "100", "what a cell sets is there afterwards"
    assert "waiting for data" in texts(cells[3]), "a cell that is run again"
    assert "no batch was taken" in texts(cells[4])
    assert "ValueError" in texts(cells[5])
    assert texts(cells[6]).strip() == "100"
    assert len(list((tmp_path / "runs").iterdir())) == 4
