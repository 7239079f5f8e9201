"""Parts of a page: sections with charts and tables, as data for the templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MOST_LISTED: Final = 16
"""Rows above which a table is scrolled and not listed on a phone: as a list it would have no end."""
PHONE_CHARACTERS: Final = 46
"""Characters of a table's row that fit side by side on a phone."""


@dataclass(slots=True)
class Row:
    """Row of a table; the first cell heads it."""

    cells: list[str]
    colour: str | None = None
    how: str = ""
    code: str = ""
    """Source text below the first cell."""
    link: str = ""
    """Where the first cell leads to: a page beside this one."""


@dataclass(slots=True)
class Table:
    """A table, beside a chart or by itself."""

    caption: str
    heads: list[str]
    rows: list[Row]
    summary: str = ""
    how: str = ""
    folded: bool = False

    @property
    def is_listed(self) -> bool:
        """Return whether each row is a list on a phone: the columns do not fit, and the rows are few."""
        if len(self.rows) > MOST_LISTED:
            return False
        first, *others = (
            [head, *(row.cells[i] for row in self.rows if i < len(row.cells))]
            for i, head in enumerate(self.heads)
        )
        widths = [max(len(word) for text in first for word in text.split() or [""])]
        widths += [
            max(*(len(word) for word in texts[0].split() or [""]), *map(len, texts[1:]), 0)
            for texts in others
        ]
        return sum(widths) + len(widths) > PHONE_CHARACTERS


@dataclass(slots=True)
class Chart:
    """A chart by the name of its specification, with the same numbers as a table."""

    name: str
    spec: dict[str, Any]
    table: Table | None = None
    title: str = ""
    how: str = ""


@dataclass(slots=True)
class Section:
    """Part of a page. It is shown folded if the run is healthy, unless it says otherwise."""

    id: str
    title: str
    how: str = ""
    """Instructions for reading it, in a sentence or two."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    legend: list[dict[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    missing: str = ""
    """Note of what could not be shown, and why."""
    text: str = ""
    """Text to be shown as it is, such as a scenario."""
    text_title: str = ""
    foldable: bool = True
    folded: bool = False
    """It is folded on every page."""


def legend(items: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the entries of (label, colour)."""
    return [{"label": label, "colour": colour} for label, colour in items]
