"""The quick part of the differential test; `python -m tests.differential` runs all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.differential import run_scripts
from tests.differential.compare import differences, plain_digests
from tests.differential.kinds import KINDS
from tests.differential.scripts import SCRIPTS
from tests.differential.zygote import Zygote
from tests.forked import Program

WITH_WORKERS: Final = (
    "dicts",
    "shuffle",
    "a stream",
    "a sample that breaks",
    "random samples",
    "__len__ raises",
)
THAT_BREAK: Final = ("unequal lists", "a stream that breaks", "collate breaks", "worker_init_fn breaks")
QUICK: Final = (
    *(
        "exit 3",
        "exit of a text",
        "an error from another",
        "an error whose text breaks",
        "a hook for errors breaks",
    ),
    *(
        "argv",
        "the main module",
        "annotations",
        "stdout None",
        "atexit after an error",
        "a module",
        "a directory",
    ),
    *("a spawned process", "pickles", "warnings", "forks"),
)


@pytest.mark.parametrize("way", ["trace", "ProfiledDataLoader"])
def test_a_loader_gives_the_same(way: str, tmp_path: Path) -> None:
    def main() -> None:
        expected = plain_digests(KINDS, [0])
        if way == "trace":
            expected |= plain_digests(WITH_WORKERS, [2])
        found = differences(expected, way)
        print(len(expected), "compared", *found.items(), sep="\n")

    done = Program(main, tmp_path).finished()
    assert done.returncode == 0, done.stderr
    count = len(KINDS) + (len(WITH_WORKERS) if way == "trace" else 0)
    assert done.stdout.split("\n")[:3] == [str(count), "compared", ""], done.stdout
    assert len(KINDS) >= 90


def test_errors_of_workers_are_the_same_under_attach(tmp_path: Path) -> None:
    """Their text too, which has torch's traceback in the worker: without a frame of ours."""

    def main() -> None:
        found = differences(plain_digests(THAT_BREAK, [2]), "attach")
        print(*found.items(), sep="\n")

    done = Program(main, tmp_path).finished()
    assert (done.returncode, done.stdout) == (0, "\n"), done


@pytest.mark.slow
def test_a_script_does_the_same() -> None:
    with Zygote(run_scripts.environment(Path.cwd())) as zygote:
        apart = {name: run_scripts.compared(SCRIPTS[name], zygote) for name in QUICK}
    assert not {name: lines for name, lines in apart.items() if lines}
    assert len(SCRIPTS) >= 60


@pytest.mark.slow
def test_an_iterator_that_lives_to_the_interpreters_end_says_nothing(tmp_path: Path) -> None:
    """Its module's names are gone when it goes."""
    script = (
        "import pipeprof\nfrom torch.utils.data import DataLoader\n"
        "with pipeprof.profile(DataLoader([0] * 8), out='run') as loader:\n    batches = iter(loader)\n"
        "    print(next(batches).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=run_scripts.environment(Path.cwd()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0]\n", "")
