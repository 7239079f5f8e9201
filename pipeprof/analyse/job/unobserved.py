"""Ranks of a job that were not observed, because others were chosen: what the answer leaves open for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeprof import units


@dataclass(frozen=True, slots=True)
class Unobserved:
    """Ranks that were not chosen, and the part of the others' time that they may have cost."""

    chosen: str
    """The choice as it was asked for: `every 8`, `0,8,16`."""
    ranks: int
    """Number of ranks that were not chosen and have no part here."""
    world_size: int
    meetings_share: float | None
    """Share of the observed ranks' time in meetings, beyond their waiting for each other; None if no meeting
    was recorded."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """Return what was not observed, and what that leaves open."""
        said = f"{self.ranks} of {self.world_size} ranks were not observed (asked for: {self.chosen})"
        if self.meetings_share is None:
            return f"{said}: whether one of them held up the others is not known."
        return (
            f"{said}: the observed ones spent {units.percent(self.meetings_share)} of their time in "
            "all-reduces beyond waiting for each other, which those may have caused."
        )
