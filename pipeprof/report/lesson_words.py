"""The lesson's claims as the page tells them: words from `static/lesson.toml`, numbers from the runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeprof.report import document
from pipeprof.report.section import Chart, Table

_KINDS = ("emulated", "measured", "simulated")


@dataclass
class Claim:
    """One claim of the page."""

    number: int
    title: str
    lecture: str
    """What the lecture says."""
    why: str
    kinds: list[tuple[str, str]]
    """(`emulated`, `measured` or `simulated`; of what that is true)."""
    tries: list[tuple[str, str]]
    """(what to change, the command)."""
    short: str = ""
    """The answer in a few words, for the table of contents."""
    answer: str = ""
    """What was measured, in one sentence with numbers."""
    more: list[str] = field(default_factory=list)
    """What else was measured, a sentence each."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    legend: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    side_by_side: bool = False
    """Its charts are small and stand beside each other."""


@cache
def texts() -> Mapping[str, Any]:
    """The file of words."""
    return tomllib.loads(document.asset("lesson.toml"))


def claim(number: int, directory: Path) -> Claim:
    """A claim without its numbers yet; commands name `directory` unless that is a path of this machine."""
    said = next(one for one in texts()["claim"] if one["number"] == number)
    runs = "DIR" if directory.is_absolute() else directory.as_posix()
    return Claim(
        number,
        said["title"],
        said["lecture"],
        said["why"],
        [(kind, said[kind]) for kind in _KINDS if kind in said],
        [(text, command.replace("RUNS", runs)) for text, command in said["try"]],
    )
