"""The rule that names a fix, for verdict, page, terminal, `predict`, JSON and jobs.

`candidates` lists what bears on the cause and can be carried out on this run, the least effort first.
`choose` picks one of them: with predicted gains the largest, without them the first. A run that was analysed
but not used for prediction therefore has a fix too, by the same rule.

A prediction knows more than the ledger, so its choice may differ. So that nothing that is read later
contradicts a page that exists, the predicted choice is recorded beside the run when it is shown
(`pipeprof.record.choice`), and `Analysis.verdict` names it for as long as the run has the cause that it was
chosen for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeprof.analyse.causes import Finding, is_heavy
from pipeprof.analyse.figures import Facts
from pipeprof.devices import is_in_memory
from pipeprof.vocabulary import causes, fixes, mechanisms, owners
from pipeprof.vocabulary.causes import Cause

EQUAL: Final = 0.02
"""Share by which predicted throughputs may differ and still be equal; a gain of no more than this does not
count."""
RECEIVING: Final = 0.8
"""Share of the loop's waits above which it waits only for its own unpickling: batches that came sooner would
only lie ready longer."""
WORTH_MENDING: Final = 0.1
"""Share of the time from which an owner is worth fixing besides the cause: without less than that, a loop is
at most a ninth faster."""
MEMORY_SHARE: Final = 0.8
"""Share of the machine's memory that a data set held in it may take."""


def choose(finding: Finding, facts: Facts, gains: Mapping[str, float] | None = None) -> str:
    """Return the word of the fix to name, that of `fixes.NONE` if nothing can be done.

    `gains` maps fixes that were predicted, and that the machine can take, to the share of the throughput that
    they add. A fix that is predicted to gain nothing is not named; among equal gains the one with the least
    effort is.
    """
    gains = gains or {}
    possible = candidates(finding, facts)
    first = _before_all_others(finding, facts)
    least = -EQUAL if first == fixes.FEWER_WORKERS.word else EQUAL
    if first in possible and (finding.shown is not None or gains.get(first, 1.0) > least):
        return first
    for some in ([fix for fix in possible if fix != fixes.MORE_CORES.word], possible):  # cores cost money
        best = max((gains[fix] for fix in some if fix in gains), default=0.0)
        if best > EQUAL:
            return next(fix for fix in some if fix in gains and equal(gains[fix], best))
        unpredicted = [fix for fix in some if fix not in gains]
        likely = [fix for fix in unpredicted if _is_likely(fix, finding, facts)]
        if unpredicted:
            return next(iter((*likely, *unpredicted)))
    return fixes.NONE.word


def equal(gain: float, best: float) -> bool:
    """Return True if a gain comes within `EQUAL` of the best one."""
    return 1 + gain >= (1 + best) * (1 - EQUAL)


def candidates(finding: Finding, facts: Facts) -> tuple[str, ...]:
    """List what bears on the cause and can be carried out on this run, the least effort first."""
    cause = causes.record_of(finding.cause)
    bearing = [fix.word for fix in cause.candidates(finding.detail)]
    possible = [fix for fix in bearing if _can_be_carried_out(fix, cause, facts)]
    # what bears on the mechanism also bears on the cause, and is more specific
    return tuple(dict.fromkeys((*_of_mechanism(finding), *possible)))


def _of_mechanism(finding: Finding) -> tuple[str, ...]:
    """Return the fixes that bear on the mechanism, none if none is established."""
    shown = finding.shown
    return () if shown is None else tuple(fix.word for fix in (shown.fix, *shown.also))


def bearing(finding: Finding, shares: Mapping[str, float]) -> frozenset[str]:
    """Return the fixes that bear on the cause, or on an owner of at least `WORTH_MENDING` of the time.

    `shares` are the owners' shares of the ledger.
    """
    of_cause = causes.record_of(finding.cause).candidates(finding.detail)
    words = {*_of_mechanism(finding), *(fix.word for fix in of_cause)}
    for owner, share in shares.items():
        if share >= WORTH_MENDING:
            words |= causes.fixes_of_owner(owner)
    if shares.get(owners.STATE):  # torchdata resumes a state only with the same number of workers
        words -= {fixes.MORE_WORKERS.word, fixes.FEWER_WORKERS.word, fixes.NO_WORKERS.word}
    return frozenset(words)


def is_useless(fix: str, finding: Finding, facts: Facts) -> bool:
    """Return True for a fix that is known not to help this run, whatever is predicted of it.

    It need not bear on the cause: it may relieve what the run is limited by next.
    """
    cause, record = causes.record_of(finding.cause), fixes.BY_WORD[fix]
    if record in cause.ineffective(finding.detail) or not _can_be_carried_out(fix, cause, facts):
        return True
    mechanism = None if finding.shown is None else finding.shown.mechanism
    # without workers the main process draws the indices too, and makes what workers were started for
    fewer = mechanism is mechanisms.SAMPLER or cause in (causes.STARTUP, causes.STATE)
    useless = {
        fixes.RAM: cause in causes.WORK,
        # batches wait for a lock on their way, not for their bytes
        fixes.LIGHTER_TRANSFER: mechanism is mechanisms.GIL,
        # no batch is there sooner than the workers are
        fixes.DEEPER_PREFETCH: cause is causes.STARTUP,
        fixes.FEWER_WORKERS: fewer,
        fixes.NO_WORKERS: fewer,
        fixes.MORE_WORKERS: cause in _NO_MORE_WORKERS
        or finding.detail == causes.LOCK.word
        or mechanism in _MADE_WORSE,
    }
    return useless.get(record, False)


_NO_MORE_WORKERS: Final = (
    causes.CPU_CONTENTION,
    causes.STORAGE_BANDWIDTH,
    causes.PIN,
    causes.MAIN,
    causes.STARTUP,
    causes.STATE,
)
"""Causes for which the resource that more workers need is full, or to which each of them adds: its start, or
its own state, which torchdata resumes only with the same number of workers."""
_MADE_WORSE: Final = (
    mechanisms.PER_SAMPLE,
    mechanisms.THREADS,
    mechanisms.DUPLICATES,
    mechanisms.AFFINITY,
    mechanisms.GC,
)
"""Mechanisms that more workers make worse or repeat, or that leave no core for them."""


def fits_in_memory(size_bytes: float, memory_bytes: float | None) -> bool:
    """Return True if `size_bytes` fit in the machine's memory, or if its size is not known."""
    return not memory_bytes or size_bytes <= MEMORY_SHARE * memory_bytes


def _can_be_carried_out(fix: str, cause: Cause, facts: Facts) -> bool:
    """Return False for a fix that is already in place, or known to be useless on this machine."""
    in_memory = is_in_memory(facts.tier)
    computes = cause in causes.WORK or cause is causes.TRANSFER  # pickling and unpickling take a core too
    fits = fits_in_memory(facts.data_bytes or 0, facts.memory_bytes)
    copies = facts.iterable and facts.splits_stream is False  # each worker would deliver the same samples
    receives = (facts.received_share or 0.0) >= RECEIVING
    possible = {
        fixes.MORE_WORKERS: not (
            copies or receives or (computes and not _cores_idle(facts)) or _device_full(facts)
        ),
        fixes.FEWER_WORKERS: facts.workers > 1,
        fixes.NO_WORKERS: facts.workers > 0,
        fixes.PERSISTENT_WORKERS: facts.workers > 0 and not facts.persistent and facts.epochs > 1,
        fixes.OUT_OF_ORDER: facts.workers > 1 and facts.in_order and not receives,
        fixes.DEEPER_PREFETCH: facts.workers > 0 and not receives,
        fixes.LIGHTER_TRANSFER: is_heavy(facts.batch_bytes, facts.pickling_ns)
        and (facts.workers > 0 or cause is causes.H2D),
        fixes.PIN: not facts.pin_memory,
        fixes.DEVICE_PREFETCH: not facts.prefetches_to_device,
        fixes.FASTER_STORAGE: not in_memory and facts.tier != "nvme",
        fixes.RAM: not in_memory and fits,
        fixes.SHARDS: not in_memory and not facts.sharded,
    }
    return possible.get(fixes.BY_WORD[fix], True)


def _before_all_others(finding: Finding, facts: Facts) -> str:
    """Return a fix that is named however large the gains of others: idle cores that one more worker uses; and
    fewer workers where they crowd the cores, since what is left to do then shows without the crowd."""
    if finding.shown is not None:
        return finding.shown.fix.word
    if finding.detail == causes.OVERSUBSCRIBED.word:
        return fixes.FEWER_WORKERS.word
    is_work = causes.record_of(finding.cause) in causes.WORK
    return fixes.MORE_WORKERS.word if is_work and _cores_idle(facts) else ""


def _is_likely(fix: str, finding: Finding, facts: Facts) -> bool:
    """Return False if a fix that was not predicted helps under conditions that this run does not show."""
    if fix == fixes.RAM.word:
        return bool(facts.data_bytes and facts.memory_bytes)
    if fix == fixes.MORE_WORKERS.word and causes.record_of(finding.cause) in causes.STORAGE:
        if facts.device is not None and facts.device.state != "room":
            return False
        return facts.tier != "hdd"  # a disk has one arm; other storage serves several requests at once
    return True


def _device_full(facts: Facts) -> bool:
    """Return True if more readers get no more from the device that the data comes from."""
    return facts.device is not None and facts.device.state == "full"


def _cores_idle(facts: Facts) -> bool:
    """Return True if at least half a core, and a quarter of all cores, were idle."""
    idle = facts.idle_cores
    return idle is None or idle >= max(0.5, 0.25 * (facts.cores or 1))
