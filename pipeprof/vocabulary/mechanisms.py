"""Mechanisms: reasons for a place to be expensive, each shown by a counter of its own.

A mechanism is named only if its counter passes the threshold and explains at least `EXPLAINS` of what the
owner is charged; else the owner stands alone. `measured` says all that must be so. The thresholds are chosen;
the exams in tests/diagnosis, of public reports and of planted cases, are what they were tried on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeprof.vocabulary import fixes
from pipeprof.vocabulary.fixes import Fix

EXPLAINS: Final = 0.5
"""Share of an owner's time that a mechanism has to explain to be named."""


@dataclass(frozen=True, slots=True, eq=False)
class Mechanism:
    """Mechanism: a reason for a place to be expensive."""

    word: str
    label: str
    meaning: str
    """Meaning of it: what happens, in one sentence."""
    measured: str
    """The quantity that is compared with `at_least`."""
    at_least: float
    fixes: tuple[Fix, ...]
    """Fixes that bear on it, the first if the run does not choose."""
    says: str
    """Sentence of the verdict; `{figure}` is a named figure of the counter."""
    no_fix: str = ""
    """Reason for which nothing in the loader bears on it, if `fixes` is empty."""
    is_stall: bool = True
    """True if it takes time; False for one that only warns."""


GIL: Final = Mechanism(
    "gil",
    "GIL",
    "Handing a batch over waits for the worker's GIL, which its main thread holds in one native call.",
    "share of the loop's waits in which a finished batch waited for its worker's GIL, five batches or more",
    0.5,
    (fixes.CHEAPER_COLLATE, fixes.CHEAPER_WORK, fixes.FILE_SYSTEM_SHARING),
    "{waited} of {batches} finished batches wait {step}, {held_ns} each, for the GIL, which {holder} holds.",
)
MAIN_GIL: Final = Mechanism(
    "main-gil",
    "GIL of the main process",
    "The training thread, or the thread that pins batches, waits for the GIL while another one has it.",
    "share of the owner's time in which that thread waited for the GIL while another one ran, at the least",
    0.5,
    (fixes.OWN_PROCESS, fixes.LOOP),
    "{who} waits for the GIL {waited_share} of that time or more, while the thread “{holder}” runs{place}.",
)
GC: Final = Mechanism(
    "gc",
    "garbage collection",
    "Python's garbage collector walks many objects, again and again.",
    "share of the making of batches in garbage collections",
    0.5,
    (fixes.GC_FREEZE,),
    "The garbage collector ran {collections} times in generation {generation}, {collection_ns} each time.",
)
THREADS: Final = Mechanism(
    "threads",
    "too many threads",
    "The thread pools of all workers together have more threads than there are cores.",
    "threads of the workers' pools per core, where the pools compute, more threads than cores were runnable "
    "and the cores are used up to 70 %",
    2.0,
    (fixes.ONE_THREAD,),
    "{workers} workers × {threads} threads ({library}) share {cores} cores.",
)
AFFINITY: Final = Mechanism(
    "affinity",
    "CPU affinity",
    "The workers are bound to fewer cores than the machine allows.",
    "cores of the machine per core in the worker's mask, which the workers use up to 70 %",
    1.5,
    (fixes.AFFINITY,),
    "Workers are bound to {mask_cores} of {cores} cores{since}.",
)
REOPENED: Final = Mechanism(
    "reopened",
    "reopened files",
    "The same file is opened, and its header read, for each sample.",
    "share of the owner's time in opening files again, for every other sample and four times an epoch each",
    0.5,
    (fixes.KEEP_OPEN,),
    "The same files are opened {opens} for each sample, {open_ns} each time.",
)
OVER_READ: Final = Mechanism(
    "over-read",
    "reading too much",
    "Far more is read or decoded than the samples hold.",
    "rows decoded or bytes decompressed per one that is used; of bytes read from files four, and 64 MB more",
    2.0,
    (fixes.SMALLER_CHUNKS,),
    "{read} are {verb} for {used}.",
)
OVER_DECODE: Final = Mechanism(
    "over-decode",
    "decoding too much",
    "Images or frames are decoded in full and then cropped, shrunk or dropped.",
    "pixels decoded per one that crops and resizes leave, of 0.25 megapixels or more; frames per one used",
    4.0,
    (fixes.CHEAPER_DECODE,),
    "{decoded} are decoded for {used}.",
)
READ_AHEAD: Final = Mechanism(
    "read-ahead",
    "read-ahead",
    "The kernel reads ahead what nobody asks for.",
    "bytes from the device per byte that was asked for",
    2.0,
    (fixes.NO_READ_AHEAD,),
    "The device delivers {device_bytes} where {asked_bytes} are asked for.",
)
PER_SAMPLE: Final = Mechanism(
    "per-sample",
    "overhead per sample",
    "Samples are so cheap that calling for each costs more than making it.",
    "samples of a batch, where each takes no more than 20 µs: it explains the whole, since torch's own calls "
    "for a sample take as long, and nothing counts them apart",
    64.0,
    (fixes.BATCH_FETCH,),
    "Each of the {samples} samples of a batch takes {sample_ns}, little more than the calls for it; "
    "more workers do not help.",
)
SAMPLER: Final = Mechanism(
    "sampler",
    "sampler",
    "The main process waits for the sampler to draw indices.",
    "share of the owner's time inside the sampler",
    0.5,
    (fixes.CHEAPER_SAMPLER,),
    "{sampler} takes {draw_ns} of each epoch to draw its indices.",
)
START_UP: Final = Mechanism(
    "start-up",
    "slow start and end of workers",
    "Starting a worker pickles the data set, imports modules and runs worker_init_fn; in the end it is shut "
    "down.",
    "share of a start, shutdown included, in its largest part, where something can be done about that",
    0.5,
    (fixes.PERSISTENT_WORKERS, fixes.LIGHTER_DATASET, fixes.FORK),
    "Starting a worker, and ending it, takes {start_ns}, most of it {part}.",
)
ITERATOR_PER_STEP: Final = Mechanism(
    "iterator-per-step",
    "an iterator for each step",
    "A new iterator of the loader is made for a few batches, and its workers and prefetched batches go to "
    "waste.",
    "batches of an epoch per batch that is taken of an iterator, of five iterators left after four at most",
    4.0,
    (fixes.ONE_ITERATOR,),
    "Each iterator gives {taken} of {length} batches.",
)
LOST_CACHE: Final = Mechanism(
    "lost-cache",
    "lost cache",
    "What the data set caches in its workers is lost when they end with the epoch.",
    "cost of a sample in later epochs per its cost in the first, each in its quickest batch, where ended "
    "workers have kept 1 MB and 30 % of what they made after their first batch: it explains the whole, since "
    "all epochs but the first make again what was made",
    0.9,
    (fixes.PERSISTENT_WORKERS,),
    "Each worker's data set grew by {grown_bytes} in an epoch, and was lost at its end.",
)
DUPLICATES: Final = Mechanism(
    "duplicates",
    "duplicate samples",
    "Several workers deliver the same samples of an iterable data set.",
    "workers that deliver a sample, of the first ones of the worker of which the fewest were seen",
    1.5,
    (fixes.SPLIT_STREAM,),
    "Each of the first {seen} samples comes {copies} times, from as many workers; more workers add copies.",
)
CONNECTIONS: Final = Mechanism(
    "connections",
    "new connections",
    "A new connection, with its handshakes and the server's greeting, is made for each sample.",
    "connections made per sample, where making them and waiting for their first answers takes the time",
    0.5,
    (fixes.KEEP_OPEN,),
    "{made} connections are made for {samples} samples: {connect_ns} each, and {first_ns} more until the "
    "first answer.",
)
HOST_BODY: Final = Mechanism(
    "host-body",
    "Python between loader and step",
    "The training thread works on the CPU outside of forward, backward and optimiser.",
    "share of the loop's own time on the CPU outside of forward, backward and optimiser, by samples",
    0.5,
    (fixes.LOOP,),
    "The training thread spends {step_share} of a step in Python outside of forward, backward, optimiser.",
)
MEMORY_GROWTH: Final = Mechanism(
    "memory-growth",
    "growing memory",
    "The workers' memory grows from sample to sample.",
    "what the workers will have grown by at the end of the epoch, per memory that was left at its start",
    0.8,
    (fixes.ARRAYS,),
    "The workers grew by {grown_bytes} in an epoch; {left_bytes} were left.",
    is_stall=False,
)
MORE_SHARED_MEMORY: Final = (
    "give the container more, as with `docker run --shm-size=8g`, or use fewer workers, smaller batches or a "
    "smaller prefetch_factor"
)
"""Remedy for a /dev/shm that is full, or nearly so."""
THREAD_CONSUMER: Final = Mechanism(
    "thread-consumer",
    "another thread takes the batches",
    "Another thread than the one that trains takes batches of the loader.",
    "threads that take batches and are not the one whose optimiser steps",
    1.0,
    (),
    "Batches are taken by the thread {thread}: the loop's own wait is what counts.",
    "what the training loop itself waits for is not this loader",
    is_stall=False,
)

MECHANISMS: Final = (
    GIL,
    MAIN_GIL,
    GC,
    THREADS,
    AFFINITY,
    REOPENED,
    OVER_READ,
    OVER_DECODE,
    READ_AHEAD,
    PER_SAMPLE,
    SAMPLER,
    START_UP,
    ITERATOR_PER_STEP,
    LOST_CACHE,
    DUPLICATES,
    CONNECTIONS,
    HOST_BODY,
    MEMORY_GROWTH,
    THREAD_CONSUMER,
)
BY_WORD: Final = {mechanism.word: mechanism for mechanism in MECHANISMS}
