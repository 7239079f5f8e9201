"""A claim of the lecture as the page shows it: words from `lesson.toml`, numbers from the runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pipeprof.report.page.section import Chart, Table

_KINDS = ("emulated", "measured", "simulated")


@dataclass
class Claim:
    """A claim of the lecture, as the page shows it."""

    number: int
    title: str
    lecture: str
    """The lecture's statement."""
    why: str
    kinds: list[tuple[str, str]]
    """(`emulated`, `measured` or `simulated`; the part to which that applies)."""
    tries: list[tuple[str, str]]
    """(the change to make, the command)."""
    short: str = ""
    """The answer in a few words, for the table of contents."""
    answer: str = ""
    """The measurement, in a sentence with numbers."""
    more: list[str] = field(default_factory=list)
    """Further measurements, a sentence each."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    legend: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    side_by_side: bool = False
    """Its charts are small and stand side by side."""


@cache
def texts() -> Mapping[str, Any]:
    """Read the file of words."""
    return tomllib.loads(
        resources.files("pipeprof.lesson").joinpath("lesson.toml").read_text(encoding="utf-8")
    )


def blank_claim(number: int, directory: Path) -> Claim:
    """Return a claim without its numbers; commands name `directory` if that is a relative path."""
    words = next(words for words in texts()["claim"] if words["number"] == number)
    runs = "DIR" if directory.is_absolute() else directory.as_posix()
    return Claim(
        number,
        words["title"],
        words["lecture"],
        words["why"],
        [(kind, words[kind]) for kind in _KINDS if kind in words],
        [(text, command.replace("RUNS", runs)) for text, command in words["try"]],
    )
