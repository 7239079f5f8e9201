"""Choice of the ranks that are observed, by `--ranks 0,8,16` or `--every 8`, handed on to all processes."""

from __future__ import annotations

import os

from pipeprof.environment import RANKS
from pipeprof.errors import MeasureError
from pipeprof.record.meta import MOST_RANKS, ChosenRanks


def chosen_here() -> ChosenRanks:
    """Return the observed ranks of this process's job. Raises `MeasureError` for a bad variable."""
    text = os.environ.get(RANKS, "")
    return read_choice(text, RANKS) if text.strip() else ChosenRanks()


def read_choice(text: str, source: str) -> ChosenRanks:
    """Read `0,8,16` or `every 8`, which `source` gives. Raises `MeasureError` for anything else."""
    words = text.split()
    if words == ["all"]:
        return ChosenRanks()
    if len(words) == 2 and words[0] == "every" and _is_rank(words[1]) and int(words[1]) > 0:
        return ChosenRanks(every=int(words[1]))
    ranks = [part.strip() for part in text.split(",")]
    if not all(map(_is_rank, ranks)):
        raise MeasureError(f"{source} is {text!r}, which names no ranks", "write it as 0,8,16 or as every 8")
    return ChosenRanks(ranks=tuple(sorted({int(part) for part in ranks})))


def choose(ranks: str | None, every: int | None) -> ChosenRanks:
    """Choose the ranks of this process's job, and of those that it starts, by the options of a verb.

    Without options it is what the environment says. Raises `MeasureError` if they name no ranks.
    """
    if ranks is not None and every is not None:
        raise MeasureError("--ranks and --every both choose the ranks", "give one of them")
    if ranks is not None:
        chosen = read_choice(ranks, "--ranks")
    elif every is not None:
        chosen = ChosenRanks(every=every)
    else:
        return chosen_here()
    os.environ[RANKS] = chosen.text
    return chosen


def _is_rank(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 7 and int(text) <= MOST_RANKS
