"""Footnotes of a table: the assumptions and extrapolations behind its numbers, each listed once."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from pipeprof.simulate.extrapolation import Extrapolation, joined

WIDTH: Final = 100
"""Columns of a terminal that everything fits."""
_HELD: Final = "\u00a0"
"""A space at which no line is broken, so that a number stays with its word."""
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbers notes in the order in which they are first used. What was `known` before needs no note."""

    def __init__(self, known: Collection[Extrapolation] = ()) -> None:
        self._known = frozenset(known)
        self._notes: dict[str, list[Extrapolation]] = {}

    def mark(self, text: str, notes: Iterable[Extrapolation]) -> str:
        """Return `text` with the numbers of its notes behind it: `16 cores ¹ ³`."""
        marks = sorted({self._number(note) for note in notes if note not in self._known})
        return _HELD.join([text, *(str(number).translate(_RAISED) for number in marks)])

    def _number(self, note: Extrapolation) -> int:
        """Return the number of a note; those that differ only by their amount are one."""
        self._notes.setdefault(note.text, []).append(note)
        return list(self._notes).index(note.text) + 1

    def lines(self) -> Iterator[str]:
        """Yield the notes behind their numbers, as wide as a terminal."""
        for number, (text, alike) in enumerate(self._notes.items(), 1):
            raised = f"{str(number).translate(_RAISED)} {joined(text, alike)}"
            yield from textwrap.wrap(raised, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
