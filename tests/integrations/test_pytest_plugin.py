"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.integrations.pytest_plugin import _gates

PLUGIN = "pipeprof.integrations.pytest_plugin"
TESTS = """
import time
import pytest, torch
from torch.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self):
        return 1200
    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.zeros(2)

def train(step, batches=100):
    for number, batch in enumerate(DataLoader(Slow(), batch_size=2)):
        time.sleep(step)
        if number == batches:
            break

@pytest.mark.pipeprof(max_stall="5%")
def test_waits():
    train(0.0, 500)

@pytest.mark.pipeprof(max_stall="95%")
def test_may_wait():
    train(0.02, 100)

@pytest.mark.pipeprof(max_stall=0.05)
def test_cannot_tell():
    train(0.0, 5)

@pytest.mark.pipeprof(max_stall=0.05)
def test_takes_nothing():
    pass

@pytest.mark.pipeprof(max_stall=0.05)
def test_fails_by_itself():
    train(0.0, 5)
    raise AssertionError("its own")

def test_unmarked():
    train(0.0, 2)
"""


@pytest.mark.slow
def test_a_marked_test_is_held_to_its_gates(tmp_path: Path) -> None:
    (tmp_path / "test_speed.py").write_text(TESTS)
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    load = [] if installed else ["-p", PLUGIN]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
        *load,
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    outcomes = dict(
        reversed(line.split(" - ")[0].split(" ", 1))
        for line in done.stdout.splitlines()
        if line.startswith(("PASSED ", "FAILED "))
    )
    assert outcomes == {
        "test_speed.py::test_waits": "FAILED",
        "test_speed.py::test_may_wait": "PASSED",
        "test_speed.py::test_takes_nothing": "FAILED",
        "test_speed.py::test_fails_by_itself": "FAILED",
        "test_speed.py::test_unmarked": "PASSED",
    }, done.stdout
    assert "waiting for" in done.stdout and "at most 5.0% allowed" in done.stdout
    assert "the run is inconclusive" in done.stdout and "1 skipped" in done.stdout
    assert "took no batch from a DataLoader" in done.stdout and "AssertionError: its own" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((), {}), (("5%",), {}), ((), {"max_stal": "5%"}), ((), {"max_stall": "lots"})],
)
def test_a_mark_that_cannot_be_meant(arguments: tuple[str, ...], keywords: dict[str, str]) -> None:
    mark: Any = SimpleNamespace(args=arguments, kwargs=keywords)
    with pytest.raises(pytest.UsageError, match="pipeprof"):
        _gates(mark)
