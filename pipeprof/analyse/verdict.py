"""From a ledger to a verdict: band, cause, fix, evidence, doubts, as data. Text is the report's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Band = Literal["not", "moderately", "highly"]

BANDS: Final = ((0.05, "not"), (0.20, "moderately"))
"""Upper bounds of the stall share, as TensorFlow Profiler's input-pipeline analyser draws them."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason to trust the verdict less, with what to do about it."""

    name: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says. `cause` and `fix` are words of DESIGN §5."""

    band: Band | None
    cause: str
    fix: str
    stall_share: float | None
    stall_interval: tuple[float, float] | None
    detail: str | None = None
    doubts: tuple[Doubt, ...] = ()
    evidence: tuple[tuple[str, Any], ...] = ()
    """Named figures that carried the decision, such as ('reads_per_batch', 64)."""
