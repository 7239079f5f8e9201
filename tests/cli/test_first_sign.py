"""The first sign of life: in the order of events, since no test compares absolute times."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

UNTIL_AN_IMPORT = """
import sys
class End:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "pyarrow", "pydantic", "psutil"):
            sys.exit("importing what takes its time")
sys.meta_path.insert(0, End())
from pipeprof.cli import main
main()
"""
"""A program that ends where it is about to import the first library that takes its time."""


def on_terminal(*words: str, cwd: Path) -> str:
    """What a verb says on a terminal until then."""
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", UNTIL_AN_IMPORT, *words]
    process = subprocess.Popen(command, cwd=cwd, stdout=its_end, stderr=its_end)
    os.close(its_end)
    said = b""
    with suppress(OSError):  # how a terminal says that all its writers have gone
        while part := os.read(terminal, 4096):
            said += part
    os.close(terminal)
    process.wait()
    return said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "trace", "tune", "lesson", "attach"])
def test_a_verb_speaks_before_it_imports_what_takes_time(verb: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    word = {"trace": ["train.py"], "tune": ["train.py"], "attach": ["1"]}.get(verb, [])
    said = on_terminal(verb, *word, cwd=tmp_path)
    assert said.index(f"pipeprof {verb}: starting") < said.index("importing what takes its time")


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["report", "merge", "predict", "compare", "check", "export", "open", "history"]
)
def test_a_verb_that_reads_speaks_before_it_reads(verb: str, tmp_path: Path) -> None:
    words = {"check": ["--max-stall", "5%"], "export": ["--to", "csv"]}.get(verb, [])
    runs = [str(tmp_path)] * (2 if verb == "compare" else 1)
    said = on_terminal(verb, *runs, *words, cwd=tmp_path)
    assert said.index(f"pipeprof {verb}: reading") < said.index("importing what takes its time")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["trace", "tune"])
def test_a_script_that_is_not_there_is_refused_before_that(verb: str, tmp_path: Path) -> None:
    said = on_terminal(verb, "train.py", cwd=tmp_path)
    assert "train.py" in said and "give a Python script" in said
    assert "importing what takes its time" not in said
