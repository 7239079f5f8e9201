"""`python -m tests.fuzz --cases 20000 --seed 1`: all targets, or those that are named; prints a table.

`--case N` repeats one case; `--keep DIR` keeps the directories of those that failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

from tests.fuzz.campaign import Tally, run_cases
from tests.fuzz.harness import FAILURES
from tests.fuzz.targets import targets
from tests.fuzz.warm import warm_up


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="repeat this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--target",
        action="append",
        help="run.json, tables, exports, jobs, beside, live, profiles, scenarios",
    )
    parser.add_argument("--keep", type=Path, help="keep the cases that failed in this new directory")
    parser.add_argument(
        "--most-s", type=float, default=inf, help="begin no case of a target after so many seconds"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="pipeprof-fuzz-") as made:
        warm_up(Path(made))
        tallies = {}
        for name, make in targets(Path(made) / "bases").items():
            if options.target and name not in options.target:
                continue
            root = (options.keep or Path(made)) / name
            root.mkdir(parents=True)
            first = options.first if options.case is None else options.case
            end = first + (options.cases if options.case is None else 1)
            target, tallies[name] = make(), Tally()
            until_s = monotonic() + options.most_s
            for begin in range(first, end, EACH):
                if monotonic() > until_s:
                    break
                numbers = range(begin, min(begin + EACH, end))
                tallies[name].add(
                    run_cases(target, options.seed, numbers, root, say, options.keep is not None)
                )
                say(_rows({name: tallies[name]}).splitlines()[-1])
    print(_rows(tallies))
    return 1 if any(tally.failed for tally in tallies.values()) else 0


EACH: Final = 250
"""Cases after which it is told how far it is."""


def say(line: str) -> None:
    print(line, flush=True)


def _rows(tallies: dict[str, Tally]) -> str:
    words = ("answer", "refusal", *FAILURES)
    head = ("target", "cases", *words, "slowest, s of CPU")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, tally in tallies.items():
        cells = (
            name,
            f"{tally.cases:,}",
            *(f"{tally.words[word]:,}" for word in words),
            f"{tally.slowest_s:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
