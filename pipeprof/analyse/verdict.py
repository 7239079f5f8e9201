"""From a ledger to a verdict: band, cause, fix, evidence, doubts, as data. Text is the report's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipeprof.analyse.attribution import Attribution
from pipeprof.analyse.causes import Finding, find_cause
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.fixes import choose_fix
from pipeprof.analyse.rates import stall_interval

Band = Literal["not", "moderately", "highly"]

BANDS: Final = ((0.05, "not"), (0.20, "moderately"))
"""Upper bounds of the stall share, as TensorFlow Profiler's input-pipeline analyser draws them."""

MIN_STEPS: Final = 20
"""Fewer steps after warm-up than this say nothing about a run (DESIGN §5)."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason to trust the verdict less, with what to do about it."""

    name: str
    problem: str
    remedy: str
    decisive: bool = False
    """The verdict is `inconclusive` for it."""


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


def band_of(stall_share: float) -> Band:
    """The band of a stall share: its lower bound belongs to it."""
    if stall_share < BANDS[0][0]:
        return "not"
    return "moderately" if stall_share < BANDS[1][0] else "highly"


def judge(
    found: Attribution, facts: Facts, doubts: tuple[Doubt, ...] = (), gains: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict over the whole measured window.

    `gains` maps fixes to their predicted gain (share of throughput); without it the ledger chooses the fix.
    """
    ledger = found.whole
    share = ledger.stall_ns / ledger.window.wall_ns if ledger.window.wall_ns else None
    if share is None:
        return Verdict(None, "inconclusive", "none", None, None, doubts=doubts)
    finding = find_cause(ledger, facts)
    decisive = next((doubt for doubt in doubts if doubt.decisive), None)
    if decisive is not None:
        finding = Finding("inconclusive", decisive.name, finding.evidence)
    fix = choose_fix(finding, facts, gains)
    return Verdict(
        band_of(share),
        finding.cause,
        fix,
        share,
        stall_interval(found),
        finding.detail,
        doubts,
        finding.evidence,
    )
