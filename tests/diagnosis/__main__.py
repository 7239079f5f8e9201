"""The whole exam: `python -m tests.diagnosis [--only WORDS] [--times N] [--keep DIR]`.

Prints a line a case and the confusion matrix, as it stands in README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from pipeprof.analyse.answer import Answer
from pipeprof.simulate.answer import load
from tests.diagnosis.cases import CASES
from tests.diagnosis.harness import Case, said


def main() -> int:
    """Run the chosen cases; 0 where all were told right or were inconclusive at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to keep the run directories")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(arguments.times):
            directory = (arguments.keep or Path(scratch)) / str(turn)
            directory.mkdir(parents=True, exist_ok=True)
            wrong += examine(cases, directory)
    return int(wrong > 0)


def examine(cases: list[Case], directory: Path) -> int:
    """Run each case once; how many were told confidently wrong."""
    grades = Counter[str]()
    print("| planted | said | fix | stall | size | seconds | |\n| --- | --- | --- | --- | --- | --- | --- |")
    for case in cases:
        if why := case.needs():
            print(f"| {case.name} | – | – | – | – | – | skipped: {why} |", flush=True)
            continue
        began = time.monotonic()
        out = directory / case.name.replace(" ", "-").replace(":", "").replace(",", "").replace("'", "")
        case.run(out)
        answer = load(out)
        grade = graded(case, answer)
        grades[grade.partition(" ")[0]] += 1
        print(line(case, answer, time.monotonic() - began, grade), flush=True)
    right, unsure, wrong = (grades[grade] for grade in ("right", "unsure", "WRONG"))
    print(f"\n{right} right, {unsure} inconclusive, {wrong} wrong of {grades.total()}\n", flush=True)
    return wrong


def graded(case: Case, answer: Answer, sizes: bool = True) -> str:
    """right, unsure (inconclusive though something was planted), or what is WRONG."""
    verdict = answer.verdict
    if verdict.cause not in case.cause:
        return "unsure" if verdict.cause == "inconclusive" else "WRONG cause"
    if case.detail is not None and verdict.detail != case.detail:
        return "WRONG detail"
    if verdict.fix not in case.fix:
        return "WRONG fix"
    if sizes and case.size is not None and abs(share(answer, case.size[0]) - case.size[1]) > 0.05:
        return "WRONG size"
    return "right"


def share(answer: Answer, owner: str) -> float:
    """The owner's share of the measured window."""
    assert answer.ledger is not None
    return answer.ledger.ledger_ns.get(owner, 0) / answer.ledger.window.wall_ns


def line(case: Case, answer: Answer, seconds: float, grade: str) -> str:
    """One row of the matrix."""
    verdict = answer.verdict
    stall = "–" if verdict.stall_share is None else f"{verdict.stall_share:.0%}"
    size = "–" if case.size is None else f"{share(answer, case.size[0]):.0%} of {case.size[1]:.0%}"
    return f"| {case.name} | {said(answer)} | {verdict.fix} | {stall} | {size} | {seconds:.0f} | {grade} |"


if __name__ == "__main__":
    raise SystemExit(main())
