"""The whole exam: `python -m tests.diagnosis [--only WORDS] [--times N] [--keep DIR]`.

Prints a line a case and the confusion matrix, as it stands in README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.simulate.forecast import Forecast
from tests.diagnosis.cases import CASES as PLACES
from tests.diagnosis.devices import CASES as DEVICES
from tests.diagnosis.harness import Case, said
from tests.diagnosis.mechanisms import CASES as MECHANISMS

CASES = [*PLACES, *DEVICES, *MECHANISMS]

SIZED = 0.05
"""Distance from the planted share of the window up to which a size is right."""


def main() -> int:
    """Run the chosen cases; 0 where all were told right or were inconclusive at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to keep the run directories")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    wrong = 0
    # Planted cases are shorter than the two seconds that a verdict asks of people's runs.
    with tempfile.TemporaryDirectory() as scratch, patch("pipeprof.analyse.doubts.MIN_WALL_NS", 0):
        for turn in range(arguments.times):
            directory = (arguments.keep or Path(scratch)) / str(turn)
            directory.mkdir(parents=True, exist_ok=True)
            wrong += examine(cases, directory)
    return int(wrong > 0)


def examine(cases: list[Case], directory: Path) -> int:
    """Run each case once; how many were told confidently wrong."""
    grades = Counter[str]()
    print("| planted | said | mechanism | fix | stall | size | seconds | |\n" + "| --- " * 8 + "|")
    for case in cases:
        if why := case.needs():
            print(f"| {case.name} | – | – | – | – | – | – | skipped: {why} |", flush=True)
            continue
        began = time.monotonic()
        out = directory / case.name.replace(" ", "-").replace(":", "").replace(",", "").replace("'", "")
        case.run(out)
        answer = load(out)
        answer = replace(answer, verdict=Forecast(answer).verdict)
        grade = graded(case, answer)
        grades[grade.partition(" ")[0]] += 1
        print(line(case, answer, time.monotonic() - began, grade), flush=True)
    right, unsure, wrong = (grades[grade] for grade in ("right", "unsure", "WRONG"))
    print(f"\n{right} right, {unsure} inconclusive, {wrong} wrong of {grades.total()}\n", flush=True)
    return wrong


def graded(case: Case, answer: Analysis, sizes: bool = True) -> str:
    """right, unsure (inconclusive though something was planted), or what is WRONG."""
    verdict = answer.verdict
    if verdict.cause == "inconclusive" and case.or_unsure is not None and verdict.detail == case.or_unsure:
        return "right"
    if verdict.cause not in case.cause:
        return "unsure" if verdict.cause == "inconclusive" else "WRONG cause"
    if case.detail is not None and verdict.detail != case.detail:
        return "WRONG detail"
    if not case.allows(verdict.mechanism):
        return "unsure without mechanism" if verdict.mechanism is None else "WRONG mechanism"
    if verdict.fix not in case.fix:
        return "WRONG fix"
    sized = not sizes or case.size is None or abs(share(answer, case.size[0]) - case.size[1]) <= SIZED
    return "right" if sized else "WRONG size"


def share(answer: Analysis, owner: str) -> float:
    """The owner's share of the measured window."""
    assert answer.ledger is not None
    return answer.ledger.ledger_ns.get(owner, 0) / answer.ledger.window.wall_ns


def line(case: Case, answer: Analysis, seconds: float, grade: str) -> str:
    """One row of the matrix."""
    verdict = answer.verdict
    stall = "–" if verdict.stall_share is None else f"{verdict.stall_share:.0%}"
    size = "–" if case.size is None else f"{share(answer, case.size[0]):.0%} of {case.size[1]:.0%}"
    words = [case.name, said(answer), verdict.mechanism or "–", verdict.fix, stall, size]
    return "| " + " | ".join([*words, f"{seconds:.0f}", grade]) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
