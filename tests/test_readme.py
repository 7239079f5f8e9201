"""What the README shows runs as it is printed: every block after a line `<!-- runs -->`.

Each runs in a directory of its own that holds a `train.py`, the reader's own script; where a block speaks of
the reader's `dataset`, `loader` and `train`, it finds these, and `model`, `trainer` or `accelerator` too.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Program

ROOT = Path(__file__).parent.parent
MOST_LINES = 6
_BLOCK = re.compile(r"<!-- runs -->\s*```(python|bash|sh)\n(.*?)```", re.DOTALL)

READERS = """
import torch
from torch.utils.data import DataLoader, TensorDataset
dataset = TensorDataset(torch.zeros(256, 4))
loader = DataLoader(dataset, batch_size=8)
train = lambda batch: None
batches = iter([torch.zeros(8, 4)] * 4)
"""
READERS_OF = {
    "pipeprof.integrations.lightning": "from tests.integrations.in_lightning import *; model = Model();"
    "loader = DataLoader(TensorDataset(torch.zeros(64, 4), torch.arange(64)), batch_size=8)\n",
    "pipeprof.integrations.transformers": "from tests.integrations.in_transformers import *;"
    "trainer = a_trainer(Path(), Tokens())\n",
    "accelerator.": "import accelerate; accelerator = accelerate.Accelerator(cpu=True)\n",
}
"""What a block's reader has besides, by what the block speaks of; libraries that take seconds to import."""


def readers(code: str) -> str:
    return READERS + "".join(more for word, more in READERS_OF.items() if word in code)


BLOCKS = _BLOCK.findall((ROOT / "README.md").read_text())


def test_the_three_ways_in_are_shown() -> None:
    text = "".join(code for _, code in BLOCKS)
    for way in ("ProfiledDataLoader(", "pipeprof.profile(", "pipeprof trace "):
        assert way in text, f"README.md shows no runnable {way!r} after a line <!-- runs -->"


@pytest.mark.parametrize("code", [code for _, code in BLOCKS])
def test_a_block_is_short(code: str) -> None:
    assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES


def _python_blocks() -> Iterator[Any]:
    for language, code in BLOCKS:
        if language == "python":
            imports_much = readers(code) != READERS
            yield pytest.param(code, marks=[pytest.mark.heavy] if imports_much else [])


@pytest.mark.parametrize("code", _python_blocks())
def test_a_block_runs(code: str, tmp_path: Path) -> None:
    source = tmp_path / "example.py"
    source.write_text(readers(code) + code)
    done = Program(lambda: runpy.run_path(str(source), run_name="__main__"), tmp_path).finished()
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language != "python"])
def test_a_shells_block_runs(code: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "scripts" / "plain.py", tmp_path / "train.py")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
