"""A row of cases of one target: each is made from the seed and its number alone."""

from __future__ import annotations

import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import process_time

from tests.fuzz.harness import FAILURES, Outcome, outcome
from tests.fuzz.targets import Target


@dataclass
class Tally:
    """What the calls of a target's cases came to."""

    cases: int = 0
    words: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    """Case number, call, and what it came to."""

    @property
    def failed(self) -> int:
        return sum(self.words[word] for word in FAILURES)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.words += other.words
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.failures += other.failures


def run_cases(
    target: Target,
    seed: int,
    numbers: Iterable[int],
    root: Path,
    say: Callable[[str], None] = lambda _: None,
    keep: bool = False,
) -> Tally:
    """Run the cases `numbers` of a target below `root`, which holds nothing else; `keep` keeps bad ones."""
    tally = Tally()
    for number in numbers:
        directory = root / f"case{number}"
        directory.mkdir()
        bad = _case(target, Random(f"{target.name}/{seed}/{number}"), directory, tally)
        strangers = sorted(path.name for path in root.iterdir() if not path.name.startswith("case"))
        if strangers:
            bad.append(("outside", Outcome("outside", f"left {strangers}")))
            tally.words["outside"] += 1
            for name in strangers:
                shutil.rmtree(root / name, ignore_errors=True)
        for call, what in bad:
            line = f"{target.name} case {number}: {call}: {what.word}: {what.detail}"
            tally.failures.append(line)
            say(line)
        if not (bad and keep):
            remove(directory)
    return tally


def _case(target: Target, random: Random, directory: Path, tally: Tally) -> list[tuple[str, Outcome]]:
    tally.cases += 1
    bad = []
    for call, ask in target.calls(random, directory):
        began = process_time()
        found = outcome(ask, directory)
        tally.slowest_s = max(tally.slowest_s, process_time() - began)
        tally.words[found.word] += 1
        if found.failed:
            bad.append((call, found))
    return bad


def remove(directory: Path) -> None:
    """Remove a case, whatever lies in it; nothing is followed out of it."""
    for path in list(directory.iterdir()):
        if stat.S_ISDIR(path.lstat().st_mode):
            remove(path)
        else:
            path.unlink()
    directory.rmdir()
