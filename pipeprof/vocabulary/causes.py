"""Causes of a verdict: what the accelerator waited for, the detail behind it, and which fixes bear on it.

Sentences come in two parts, the headline and its evidence, and are never taken apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeprof.vocabulary import fixes, owners
from pipeprof.vocabulary.fixes import Fix


@dataclass(frozen=True, slots=True, eq=False)
class Detail:
    """A finer word for a cause."""

    word: str
    evidence: str
    """A sentence; `{figure}` is a named figure of the verdict. Left out if a figure is missing."""
    waiting_for: str = ""
    """Text that replaces the cause's own; empty if that stays."""
    fixes: tuple[Fix, ...] | None = None
    """Fixes that replace the cause's own, the least effort first; None if those stay."""
    ineffective: tuple[Fix, ...] = ()
    """Fixes that give nothing here, whatever is predicted of them."""
    part: str = ""
    """The part of storage's time that points to it, if it is a detail of remote storage."""


@dataclass(frozen=True, slots=True, eq=False)
class Cause:
    """Cause: an answer to "what did the accelerator wait for?"."""

    word: str
    """Word of the cause; with names of its own, the family: `transform` of `transform:Resize`."""
    waiting_for: str
    """Text that completes "... waiting for"; `{device}` is the kind of storage, `{name}` the name behind the
    colon."""
    fixes: tuple[Fix, ...]
    """Fixes that may help, the least effort first."""
    no_fix: str = ""
    """Reason for which nothing in the loader bears on it, if `fixes` is empty."""
    evidence: str = ""
    """A sentence for where no detail has one; `{figure}` is a named figure of the verdict."""
    details: tuple[Detail, ...] = ()
    takes_name: bool = False

    def detail(self, word: str | None) -> Detail | None:
        """Return the record of one of its details; None if it has none of that word."""
        return next((detail for detail in self.details if detail.word == word), None)

    def candidates(self, detail: str | None = None) -> tuple[Fix, ...]:
        """Return the fixes that bear on it, or on its detail, the least effort first."""
        known = self.detail(detail)
        return self.fixes if known is None or known.fixes is None else known.fixes

    def ineffective(self, detail: str | None = None) -> tuple[Fix, ...]:
        """Return the fixes that give nothing here, whatever is predicted of them."""
        known = self.detail(detail)
        return known.ineffective if known else ()


_READS: Final = (
    "Each batch needs {reads_per_batch} reads; the {emulated}{device} served {reads_per_s} reads/s."
)
_CORES: Final = "{workers} kept {own_cores} of {cores} busy."
_FASTER: Final = (fixes.RAM, fixes.FASTER_STORAGE)
_STORAGE: Final = (fixes.MORE_WORKERS, *_FASTER, fixes.SHARDS)

STORAGE_BANDWIDTH: Final = Cause(
    "storage-bandwidth",
    "the bandwidth of the {device}",
    (*_FASTER, fixes.SHARDS),
    evidence=_READS,
)
STORAGE_LATENCY: Final = Cause("storage-latency", "the {device}", _STORAGE, evidence=_READS)
LATENCY: Final = Detail(
    "latency",
    "Each request brings {bytes_per_request} and waits {first_byte_ns} for its first byte, with "
    "{reads_in_flight} reads in flight; more reads at once or larger requests would hide it.",
    "the latency of the remote storage",
    (fixes.MORE_WORKERS, fixes.SHARDS, *_FASTER),
    part=owners.FIRST_BYTE,
)
BANDWIDTH: Final = Detail(
    "bandwidth",
    "It delivers {read_bytes_per_s} to {reads_in_flight} reads at once, and receiving is most of their "
    "time; fewer bytes or nearer data would help, more requests would not.",
    "the bandwidth of the remote storage",
    _FASTER,
    (fixes.MORE_WORKERS, fixes.DEEPER_PREFETCH),
    part=owners.NETWORK,
)
THROTTLED: Final = Detail(
    "throttled",
    "It refused {refused_share} of the requests (503 or 429), and {throttled_time_share} of the reading time "
    "went into asking again; fewer requests a second or more prefixes would help, more workers would not.",
    "remote storage that throttles",
    (fixes.SHARDS, *_FASTER),
    (fixes.MORE_WORKERS, fixes.DEEPER_PREFETCH),
    part=owners.THROTTLED,
)
RETRIES: Final = Detail(
    "retries",
    "{failed_share} of them failed, and {retry_time_share} of the reading time went into asking again.",
    "requests to the remote storage that failed",
    _FASTER,
    part=owners.RETRY,
)
CLIENT: Final = Detail(
    "client",
    "Its own work before it asks takes longer than the answers, which bring {bytes_per_request} each; fewer, "
    "larger requests would help.",
    "the remote storage's client",
    (fixes.SHARDS, fixes.MORE_WORKERS, fixes.RAM, fixes.MORE_CORES),
    part=owners.CLIENT,
)
STORAGE_NETWORK: Final = Cause(
    "storage-network",
    "the {device}",
    _STORAGE,
    evidence=_READS,
    details=(THROTTLED, RETRIES, LATENCY, CLIENT, BANDWIDTH),
)
PAGE_CACHE: Final = Cause("page-cache", "data that was evicted from the page cache", (*_FASTER, fixes.SHARDS))
DECODE: Final = Cause(
    owners.DECODE.name,
    "samples to be decoded",
    (fixes.MORE_WORKERS, fixes.CHEAPER_DECODE, fixes.MORE_CORES),
    evidence=_CORES,
)
TRANSFORM: Final = Cause(
    owners.TRANSFORM.name,
    "the transform {name}",
    (fixes.MORE_WORKERS, fixes.CHEAPER_TRANSFORM, fixes.MORE_CORES),
    evidence=_CORES,
    takes_name=True,
)
STAGE: Final = Cause(
    owners.STAGE.name,
    "the data set's own stage “{name}”",
    (fixes.MORE_WORKERS, fixes.CHEAPER_WORK, fixes.CHEAPER_TRANSFORM, fixes.MORE_CORES),
    evidence=_CORES,
    takes_name=True,
)
GETITEM: Final = Cause(
    owners.GETITEM.name,
    "the data set's own code in __getitem__",
    (fixes.MORE_WORKERS, fixes.CHEAPER_WORK, fixes.MORE_CORES),
    evidence=_CORES,
)
ITER: Final = Cause(
    owners.ITER.name,
    "the data set's own code in __iter__",
    GETITEM.fixes,
    evidence=_CORES,
)
STATE: Final = Cause(
    owners.STATE,
    "the data set's state, which is taken for each batch so that the run can resume",
    (fixes.CHEAPER_WORK,),
    evidence="Each batch carries a snapshot; snapshot_every_n_steps makes them rarer.",
)
COLLATE: Final = Cause(
    owners.COLLATE.name,
    "samples to be collated into batches",
    (fixes.MORE_WORKERS, fixes.CHEAPER_COLLATE, fixes.LIGHTER_TRANSFER, fixes.MORE_CORES),
    evidence=_CORES,
)
TINY_BATCHES: Final = Detail(
    "tiny-batches",
    "A batch of {batch_bytes} takes {making_ns} to make, and longer to be handed over, however little it "
    "holds. Larger batches avoid that, and so does a loop without workers.",
    fixes=(fixes.NO_WORKERS,),
    ineffective=(fixes.MORE_WORKERS, fixes.DEEPER_PREFETCH, fixes.LIGHTER_TRANSFER),
)
TRANSFER: Final = Cause(
    owners.TRANSFER.name,
    "batches to travel from the workers to the main process",
    (fixes.LIGHTER_TRANSFER, fixes.MORE_WORKERS),
    details=(TINY_BATCHES,),
)
PIN: Final = Cause(owners.PIN.name, "the pin-memory thread", (fixes.LIGHTER_TRANSFER,), evidence=_CORES)
H2D: Final = Cause(
    owners.H2D.name,
    "the copy from host to device",
    (fixes.PIN, fixes.DEVICE_PREFETCH, fixes.LIGHTER_TRANSFER),
)
OVERSUBSCRIBED: Final = Detail(
    "oversubscribed",
    "There are more workers than cores.",
    fixes=(fixes.FEWER_WORKERS, fixes.CHEAPER_DECODE, fixes.CHEAPER_TRANSFORM, fixes.MORE_CORES),
)
QUOTA: Final = Detail("quota", "The container's CPU quota is used up.", fixes=(fixes.MORE_CORES,))
NEIGHBOUR: Final = Detail(
    "neighbour",
    "Other programs, or other guests of the host, kept {other_cores} cores busy{busiest}.",
    fixes=(fixes.FREE_CORES,),
)
CPU_CONTENTION: Final = Cause(
    owners.CPU_CONTENTION.name,
    "a free CPU core",
    (),
    "who took the cores was not observed; `pipeprof trace`, or telemetry_hz=2, observes it",
    evidence=_CORES,
    details=(OVERSUBSCRIBED, QUOTA, NEIGHBOUR),
)
STRAGGLER: Final = Cause(
    owners.STRAGGLER.name,
    "a few batches that took far longer than the rest",
    (fixes.OUT_OF_ORDER, fixes.DEEPER_PREFETCH, fixes.MORE_WORKERS),
    evidence=_CORES,
)
LOCK: Final = Detail(
    "lock",
    "The code that makes batches waited for a lock; more workers would wait for it too.",
    fixes=(fixes.UNBLOCK,),
)
SLEEP: Final = Detail("sleep", "The code that makes batches slept.")
SOCKET: Final = Detail("socket", "The code that makes batches waited for a socket.")
PIPE: Final = Detail("pipe", "The code that makes batches waited for a pipe.")
BLOCKED: Final = Cause(
    owners.BLOCKED.name,
    "blocking code in the data set (locks, sleeps)",
    (fixes.MORE_WORKERS,),
    details=(LOCK, SLEEP, SOCKET, PIPE),
)
STARTUP: Final = Cause(owners.STARTUP.name, "workers to start", (fixes.PERSISTENT_WORKERS,), evidence=_CORES)
IN_NEXT: Final = Detail(
    "in-next",
    "That is time inside next() in which no sample was made.",
    "the DataLoader's own code: drawing the indices of a batch, and one call for each sample",
    (fixes.BATCH_FETCH,),
)
IN_SAMPLER: Final = Detail(
    "in-sampler",
    "That is time in next() or in the start of an epoch, in the main process.",
    "the sampler, which draws the indices of the batches",
    (fixes.CHEAPER_SAMPLER,),
)
MAIN: Final = Cause(
    owners.MAIN.name, "the loop's own Python code", (fixes.LOOP,), details=(IN_NEXT, IN_SAMPLER)
)
COLLECTIVE: Final = Cause(
    owners.COLLECTIVE.name,
    "the other ranks",
    (),
    "the rank that was late has the cause, and one rank's record does not show it",
    "The report of the job's directory shows all ranks together.",
)
ACCELERATOR: Final = Cause(owners.ACCELERATOR.name, "nothing", (), "the loader keeps the accelerator busy")
INCONCLUSIVE: Final = Cause(
    "inconclusive", "something that was not observed", (), "the run does not show what to fix"
)

CAUSES: Final = (
    STORAGE_BANDWIDTH,
    STORAGE_LATENCY,
    STORAGE_NETWORK,
    PAGE_CACHE,
    DECODE,
    TRANSFORM,
    STAGE,
    GETITEM,
    ITER,
    STATE,
    COLLATE,
    TRANSFER,
    PIN,
    H2D,
    CPU_CONTENTION,
    STRAGGLER,
    BLOCKED,
    STARTUP,
    MAIN,
    COLLECTIVE,
    ACCELERATOR,
    INCONCLUSIVE,
)
_BY_WORD: Final = {cause.word: cause for cause in CAUSES}
SPELLED: Final = tuple(f"{cause.word}:<name>" if cause.takes_name else cause.word for cause in CAUSES)
"""Every cause as a list of choices writes it."""
STORAGE: Final = (STORAGE_BANDWIDTH, STORAGE_LATENCY, STORAGE_NETWORK)
"""Causes that lie in reading the data."""
WORK: Final = (DECODE, TRANSFORM, STAGE, GETITEM, ITER, STATE, COLLATE)
"""Causes that are work for a core."""


def record_of(word: str) -> Cause:
    """Return the record of a cause's word, or of its family if the word carries a name.

    Raises `KeyError` for an unknown word.
    """
    return _BY_WORD.get(word) or _BY_WORD[owners.family_of(word)]


def fixes_of_owner(owner: str) -> frozenset[str]:
    """Return the words of all fixes that bear on an owner's time, whatever the detail behind it."""
    if owners.family_of(owner) == owners.STORAGE.name:
        mine: tuple[Cause, ...] = (*STORAGE, PAGE_CACHE)
    else:
        mine = (record_of(owner),) if is_cause(owner) else ()
    details = (fix for cause in mine for detail in cause.details for fix in detail.fixes or ())
    return frozenset(fix.word for fix in (*(fix for cause in mine for fix in cause.fixes), *details))


def is_cause(word: str) -> bool:
    """Return True for the word of a cause, `transform:` and `stage:` with any name among them."""
    known = _BY_WORD.get(word)
    if known is not None:
        return not known.takes_name
    family = _BY_WORD.get(owners.family_of(word))
    return bool(family and family.takes_name and owners.name_in(word))


def text_of(word: str) -> str:
    """Return a cause as tables have it: `__getitem__`, `waiting for a core`, `storage latency`."""
    is_owner = owners.record_of(word) is not owners.UNKNOWN
    return owners.label_of(word) if is_owner else word.replace("-", " ")


def waiting_for(word: str, detail: str | None, device: str) -> str:
    """Return what completes "... waiting for"; `device` is the kind of storage."""
    cause = record_of(word)
    known = cause.detail(detail)
    text = known.waiting_for if known and known.waiting_for else cause.waiting_for
    return text.format(device=device, name=owners.name_in(word))


def evidence(word: str, detail: str | None, figures: Mapping[str, str]) -> str:
    """Return the sentence that shows it; empty if there is none or a figure of it is missing."""
    cause = record_of(word)
    known = cause.detail(detail)
    try:
        text = (known.evidence if known else cause.evidence).format_map(figures)
    except KeyError:
        return ""
    return text[:1].upper() + text[1:]
