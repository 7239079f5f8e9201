"""Three hundred cases; `python -m tests.fuzz` runs as many as one likes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.forked import Program
from tests.fuzz.campaign import run_cases
from tests.fuzz.harness import Outcome, outcome
from tests.fuzz.targets import targets
from tests.fuzz.warm import warm_up

CASES: Final = {
    "run.json": 110,
    "tables": 110,
    "exports": 20,
    "jobs": 10,
    "beside": 15,
    "live": 15,
    "profiles": 30,
    "scenarios": 30,
}
ANSWERED: Final = ("jobs", "beside")
"""What is answered in part, where a part of it is damaged."""


def test_no_case_fails(tmp_path: Path) -> None:
    """In a copy of this process: it has timers and an audit hook of its own."""

    def main() -> None:
        warm_up(tmp_path)
        for name, make in targets(tmp_path / "bases").items():
            root = tmp_path / name
            root.mkdir()
            tally = run_cases(make(), 2, range(CASES[name]), root)
            refuses = tally.words["refusal"] > 0 or name in ANSWERED
            print(name, tally.cases, refuses, *tally.failures, sep="\t")

    done = Program(main, tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{name}\t{cases}\tTrue" for name, cases in CASES.items()]


def test_the_harness_sees_what_it_looks_for(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()

    def fails() -> None:
        raise KeyError("x")

    def asks_for_memory() -> None:
        bytearray(3 << 30)

    def main() -> None:
        calls = {
            "traceback": fails,
            "memory": asks_for_memory,
            "outside": lambda: (tmp_path / "stranger").write_text("x"),
            "terminal": lambda: print("\x1b]0;owned"),
            "answer": lambda: (inside / "own").write_text("x"),
        }
        for word, call in calls.items():
            found: Outcome = outcome(call, inside)
            print(word, found.word, found.failed)

    said = Program(main, tmp_path).finished().stdout.splitlines()
    words = ("traceback", "memory", "outside", "terminal", "answer")
    assert said == [f"{word} {word} {word != 'answer'}" for word in words]
