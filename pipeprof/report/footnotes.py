"""What numbers of a table rest on, said once under it: assumptions and extrapolations."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator
from typing import Final

WIDTH: Final = 100
"""Columns of a terminal that everything fits."""
_HELD: Final = "\u00a0"
"""A space at which no line is broken, so that a number stays with its word."""
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbers texts in the order in which they are first used. What was `told` before needs no note."""

    def __init__(self, told: Collection[str] = ()) -> None:
        self._told = frozenset(told)
        self._notes: dict[str, list[str]] = {}

    def mark(self, text: str, notes: Iterable[str]) -> str:
        """`text` with the numbers of its notes behind it: `16 cores ¹ ³`."""
        marks = sorted({self._number(note) for note in notes if note and note not in self._told})
        return _HELD.join([text, *(str(number).translate(_RAISED) for number in marks)])

    def _number(self, note: str) -> int:
        """Notes that differ only by the number that they begin with are one."""
        count, _, rest = note.partition(" ")
        if not count.replace(".", "").isdigit():
            count, rest = "", note
        counts = self._notes.setdefault(rest, [])
        if count and count not in counts:
            counts.append(count)
        return list(self._notes).index(rest) + 1

    def texts(self) -> list[str]:
        """The notes: `8, 16 workers from a run with 1: far from what was measured`."""
        return [f"{', '.join(counts)} {rest}".strip() for rest, counts in self._notes.items()]

    def lines(self) -> Iterator[str]:
        """The notes behind their numbers, as wide as a terminal."""
        for number, text in enumerate(self.texts(), 1):
            raised = f"{str(number).translate(_RAISED)} {text}"
            yield from textwrap.wrap(raised, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def merged(notes: Iterable[str]) -> list[str]:
    """Each of the notes once; those that differ only by the number that they begin with are one."""
    found = Footnotes()
    found.mark("", notes)
    return found.texts()
