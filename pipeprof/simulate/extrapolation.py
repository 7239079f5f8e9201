"""Extrapolations of a prediction beyond what was measured, as records: said once, merged by what they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeprof import units


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """Extrapolation: a way in which a prediction goes beyond its run."""

    text: str
    """Text that goes on from `amount` if there is one: `cores: this machine has 2`."""
    amount: float | None = None
    """A figure that differs between predictions which go beyond the run in the same way."""

    def __str__(self) -> str:
        return joined(self.text, [self])


def joined(text: str, alike: Iterable[Extrapolation]) -> str:
    """Return extrapolations of one text as one: `8, 16 workers from a run with 1`."""
    amounts = dict.fromkeys(units.amount(each.amount) for each in alike if each.amount is not None)
    return f"{', '.join(amounts)} {text}".strip()


def merged(extrapolations: Iterable[Extrapolation]) -> list[str]:
    """Return each as text, those of one text together, in the order in which they first come."""
    groups: dict[str, list[Extrapolation]] = {}
    for each in extrapolations:
        groups.setdefault(each.text, []).append(each)
    return [joined(text, alike) for text, alike in groups.items()]
