"""The correction of a cause by what the counters show, with its mechanism and lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pipeprof.analyse.causes import CLOSE, Finding, cause_of_owner
from pipeprof.analyse.why.lines import HotLine
from pipeprof.analyse.why.mechanisms import loses_cache, shown_by
from pipeprof.analyse.why.observed import Observed
from pipeprof.analyse.why.shown import Shown
from pipeprof.record.names import counters
from pipeprof.vocabulary import causes, mechanisms, owners

MOSTLY: Final = 0.5
HELPERS: Final = 0.1
"""Share of the making of batches, in CPU time of helper threads, from which they are what is waited for."""
MAKING: Final = (*(cause.word for cause in causes.WORK), owners.STORAGE.name)
"""Families of owners that make a batch."""


def explained(finding: Finding, observed: Observed) -> tuple[Finding, tuple[HotLine, ...]]:
    """Return the finding with its mechanism, and the lines in which the blamed owner's time was spent."""
    finding = _made_again(_blocked_by(finding, observed), observed)
    observed = replace(observed, owner=finding.owner or observed.owner)
    shown = shown_by(observed)
    if shown is None:
        finding, observed, shown = _with_reason(finding, observed)
    if shown is not None and shown.mechanism is mechanisms.SAMPLER:
        drawn = finding.cause == causes.MAIN.word and shown.explains >= MOSTLY
        detail = causes.IN_SAMPLER.word if drawn else finding.detail
        return finding._replace(shown=shown, detail=detail), observed.lines.in_sampler()
    if finding.detail == causes.IN_NEXT.word:
        return finding._replace(shown=shown), observed.lines.in_next()
    return finding._replace(shown=shown), observed.hot


def _blocked_by(finding: Finding, observed: Observed) -> Finding:
    """Say what a worker was blocked by, if that is seen: an internet socket, its own helper threads."""
    if finding.owner != owners.BLOCKED.name or not observed.making_ns:
        return finding
    counts = observed.counts
    network_ns = sum(
        counts.starting(name)
        for name in (counters.CONNECT_NS, counters.HANDSHAKE_NS, counters.SOCKET_WAIT_NS)
    )
    if network_ns >= MOSTLY * observed.making_ns:
        word = causes.STORAGE_NETWORK.word
        return finding._replace(cause=word, detail=None, charged=owners.BLOCKED.name)
    helpers_ns, own_ns = observed.total("helper_cpu_ns") or 0, observed.total("cpu_ns") or 0
    if helpers_ns > own_ns and helpers_ns >= HELPERS * observed.making_ns:
        # The worker's thread waits for threads of its own, which compute for it: as Arrow's or OpenCV's do.
        word = (owners.ITER if observed.facts.iterable else owners.GETITEM).name
        return finding._replace(cause=word, detail=None, owner=word, charged=owners.BLOCKED.name)
    return finding


def _made_again(finding: Finding, observed: Observed) -> Finding:
    """Blame what batches are made of, and not their workers' starts, if workers that ended lost what they
    kept.

    Then both come from workers that end with the epoch, and making the same samples again is the larger part.
    """
    if finding.owner != owners.STARTUP.name:
        return finding
    made = {owner: ns for owner, ns in observed.ledger_ns.items() if owners.family_of(owner) in MAKING}
    if not made or sum(made.values()) <= observed.owner_ns:
        return finding
    owner = max(made, key=made.__getitem__)
    if not loses_cache(replace(observed, owner=owner)):
        return finding
    return _blaming(owner, observed)


def _with_reason(finding: Finding, observed: Observed) -> tuple[Finding, Observed, Shown | None]:
    """Blame the part of the making for which a counter shows a reason, and not handing over without one, if
    they are nearly as large."""
    unchanged = finding, observed, None
    if finding.owner != owners.TRANSFER.name or finding.detail is not None:
        return unchanged
    ledger = observed.ledger_ns
    made = [owner for owner in ledger if owners.family_of(owner) in MAKING]
    owner = max(made, key=ledger.__getitem__, default=None)
    if owner is None or ledger[owner] < CLOSE * observed.owner_ns:
        return unchanged
    of_making = replace(observed, owner=owner)
    shown = shown_by(of_making)
    return unchanged if shown is None else (_blaming(owner, observed), of_making, shown)


def _blaming(owner: str, observed: Observed) -> Finding:
    share = observed.ledger_ns[owner] / max(1, observed.wall_ns)
    return cause_of_owner(owner, observed.facts)._replace(owner=owner, share=share)
