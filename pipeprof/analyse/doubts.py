"""Reasons to trust a verdict less, and those that forbid one (DESIGN §5)."""

from __future__ import annotations

from itertools import pairwise

from pipeprof.analyse.attribution import Attribution
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.rates import stall_interval
from pipeprof.analyse.verdict import BANDS, MIN_STEPS, Doubt, band_of
from pipeprof.trace import Run


def doubts_about(run: Run, found: Attribution, facts: Facts) -> tuple[Doubt, ...]:
    """Everything that speaks against taking the verdict at its word, the decisive ones first."""
    doubts = [
        *_too_short(found),
        *_from_cache(facts),
        *_wide(found),
        *_status(run),
    ]
    return tuple(sorted(doubts, key=lambda doubt: not doubt.decisive))


def _too_short(found: Attribution) -> list[Doubt]:
    steps = int((~found.timeline.warmup).sum())
    if steps >= MIN_STEPS:
        return []
    problem = f"only {steps} steps were measured after warm-up"
    return [Doubt("too-few-steps", problem, f"measure at least {MIN_STEPS} steps", decisive=True)]


def _from_cache(facts: Facts) -> list[Doubt]:
    real = facts.tier not in ("ram", "pinned", None) and not facts.emulated_storage
    if not real or facts.cache != "cold" or facts.device_bytes is None or not facts.read_bytes:
        return []
    share = facts.device_bytes / facts.read_bytes
    if share >= 0.5:
        return []
    return [
        Doubt(
            "page-cache",
            f"the run was to be cold, and only {share:.0%} of its bytes came from the device",
            "let nothing else read the data, or say cache: warm",
            decisive=True,
        )
    ]


def _wide(found: Attribution) -> list[Doubt]:
    interval = stall_interval(found)
    share = found.whole.stall_ns / max(1, found.window.wall_ns)
    if interval is None:
        return []
    low, high = interval
    bounds = (0.0, *(bound for bound, _ in BANDS), 1.0)
    band = next((b for a, b in pairwise(bounds) if a <= share < b), 1.0)
    width = band - bounds[bounds.index(band) - 1]
    if band_of(max(0.0, low)) == band_of(min(high, 1.0)) or high - low <= width:
        return []
    problem = f"the stall share lies between {low:.0%} and {high:.0%}, which is wider than its band"
    return [Doubt("wide-interval", problem, "measure more steps", decisive=True)]


def _status(run: Run) -> list[Doubt]:
    if run.status in ("complete", "running"):
        return []
    return [Doubt("torn", f"the run is {run.status}: its end is missing", "run it again to its end")]
