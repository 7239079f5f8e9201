"""Parts of a page: sections with charts and tables, as data for the templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    """Part of a page. It is shown folded where the run is healthy, unless it says otherwise."""

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
