"""A mechanism that a run's counters show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeprof import units
from pipeprof.vocabulary.fixes import Fix
from pipeprof.vocabulary.mechanisms import Mechanism


@dataclass(frozen=True)
class Shown:
    """A mechanism, with what shows it."""

    mechanism: Mechanism
    explains: float
    """Share of the blamed owner's time, 0 to 1."""
    figures: Mapping[str, str]
    """Figures for the mechanism's sentence."""
    fix: Fix
    also: tuple[Fix, ...] = ()
    """Other fixes that bear on it here."""

    @property
    def sentence(self) -> str:
        """Return the mechanism's sentence, with its figures."""
        return self.mechanism.says.format_map(_Known(self.figures))


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return units.NOT_OBSERVED
