"""Fixes: what may be changed against a cause, what it costs and what else it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, eq=False)
class Fix:
    """Fix: a way to change a training job."""

    word: str
    label: str
    """Its name in lists and cards."""
    do: str
    """Thing to do, as an imperative phrase without a full stop."""
    changes: str
    """Change that it brings to the run, in one sentence."""
    costs: str = ""
    """Cost beyond what the run used: memory, cores, money, work; empty if nothing."""
    harm: str = ""
    """Harm that it can do to the training or the machine, in one sentence; empty if none is known."""
    reorders: bool = False
    """True if it changes which samples a batch holds, or the order of batches."""
    argument: str = ""
    """The DataLoader's argument that carries it, if it is one."""
    no_trial: str = ""
    """Reason why no command can try it, in one sentence; empty if one may."""
    at_line: bool = False
    """True if it is made at the line that costs most."""


PERSISTENT_WORKERS: Final = Fix(
    "persistent-workers",
    "Keep the workers between epochs",
    "Keep the workers between epochs",
    "Workers start once, and what a data set caches in them lives on.",
    "memory of the workers between epochs",
    "Workers keep their copy of the data set: what the main process changes in it between epochs, such as "
    "set_epoch on an iterable data set, is not seen, and each epoch may repeat the same samples.",
    argument="persistent_workers",
)
DEEPER_PREFETCH: Final = Fix(
    "deeper-prefetch",
    "A larger prefetch factor",
    "Prefetch more batches per worker",
    "More finished batches wait in the queue, so that a late one delays less.",
    "memory for the batches in the queue",
    argument="prefetch_factor",
)
OUT_OF_ORDER: Final = Fix(
    "out-of-order",
    "Out-of-order delivery",
    "Deliver batches out of order",
    "A finished batch no longer waits for an earlier one that is late.",
    harm="Batches come in another order in each run: runs with the same seed differ.",
    reorders=True,
    argument="in_order",
)
FEWER_WORKERS: Final = Fix(
    "fewer-workers",
    "Fewer workers",
    "Use fewer workers",
    "Workers no longer compete for the same cores, and less memory is used.",
    argument="num_workers",
)
NO_WORKERS: Final = Fix(
    "no-workers",
    "Batches made in the loop",
    "Make the batches in the loop itself, without workers",
    "No batch has to be handed over from another process.",
    argument="num_workers",
)
MORE_WORKERS: Final = Fix(
    "more-workers",
    "More workers",
    "Use more workers",
    "More batches are made at the same time.",
    "a core and the memory of a copy of the data set for each worker",
    "Memory grows with each worker; an iterable data set that does not split its samples by "
    "get_worker_info() delivers them once more for each worker.",
    argument="num_workers",
)
ONE_THREAD: Final = Fix(
    "one-thread",
    "One thread per worker",
    "Limit each worker's libraries to one thread",
    "The thread pools of workers no longer compete for the same cores.",
    harm="A limit set for the main process too slows what it computes on the CPU.",
)
AFFINITY: Final = Fix(
    "affinity",
    "Let workers use all cores",
    "Reset the CPU affinity in worker_init_fn with os.sched_setaffinity",
    "Workers run on all cores that the machine allows, and not only on those of an inherited mask.",
    harm="A mask that was set on purpose, to keep jobs apart, no longer holds.",
    argument="worker_init_fn",
)
FORK: Final = Fix(
    "fork",
    "Fork the workers",
    "Start the workers by fork",
    "Workers share the data set's memory, and neither import nor unpickle anything at their start.",
    harm="A process that has threads or has initialised CUDA may hang or fail in its forked workers.",
    argument="multiprocessing_context",
)
FILE_SYSTEM_SHARING: Final = Fix(
    "file-system-sharing",
    "Share batches through the file system",
    'Call torch.multiprocessing.set_sharing_strategy("file_system")',
    "The main process opens a batch's memory by name, and no longer asks a thread of the worker for it.",
    harm="Memory of a process that is killed may stay in /dev/shm until the machine restarts.",
)
GC_FREEZE: Final = Fix(
    "gc-freeze",
    "Freeze the garbage collector's objects",
    "Call gc.freeze() before the workers start, and drop explicit gc.collect() calls",
    "Collections no longer walk the objects that live as long as the process.",
    harm="Cycles among the frozen objects are never collected.",
)
ONE_ITERATOR: Final = Fix(
    "one-iterator",
    "One iterator per epoch",
    "Make the loader's iterator once per epoch",
    "Workers start and prefetch once per epoch and not once per step.",
    harm="Batches of one iterator do not repeat: code that relied on a fresh iterator sees other samples.",
    reorders=True,
)
PIN: Final = Fix(
    "pin",
    "Pinned memory",
    "Pin batches and copy them without blocking",
    "Copies to the device run from page-locked memory beside the computation.",
    "page-locked memory for the batches under way",
    "Page-locked memory cannot be swapped out: too much of it starves other programs.",
    argument="pin_memory",
)
DEVICE_PREFETCH: Final = Fix(
    "device-prefetch",
    "Prefetch to the device",
    "Copy the next batch on a side stream while this one is computed",
    "The copy of a batch hides behind the computation of the one before.",
    "device memory and page-locked memory for one more batch",
)
NO_READ_AHEAD: Final = Fix(
    "no-read-ahead",
    "No read-ahead",
    "Turn read-ahead off for the files (posix_fadvise or madvise with RANDOM)",
    "The device delivers the bytes that are asked for and no others.",
    harm="Sequential reads, and reads from network file systems, become slower.",
)
KEEP_OPEN: Final = Fix(
    "keep-open",
    "Keep files and connections open",
    "Open each file or connection once per worker",
    "Samples no longer pay for opening, reading headers or handshakes.",
    "open file descriptors in each worker",
    "A handle opened before the workers fork must not be shared between them.",
    at_line=True,
)
BATCH_FETCH: Final = Fix(
    "batch-fetch",
    "Fetch whole batches",
    "Make whole batches: in __getitems__, or in an iterable data set with batch_size=None",
    "The cost per sample of Python calls is paid once per batch.",
)
CHEAPER_SAMPLER: Final = Fix(
    "cheaper-sampler",
    "A cheaper sampler",
    "Draw the indices in one vectorised call, or in smaller blocks",
    "The main process no longer waits for the sampler's draw.",
    harm="Another way of drawing gives other samples with the same seed.",
    reorders=True,
    argument="sampler",
)
SMALLER_CHUNKS: Final = Fix(
    "smaller-chunks",
    "Smaller chunks",
    "Rewrite the files with smaller chunks or row groups, or read a chunk's samples together",
    "Fewer bytes are read and decoded for each sample.",
    "rewriting the data set",
    "Smaller chunks compress less well and are slower to read in sequence.",
)
SHARDS: Final = Fix(
    "shards",
    "Files packed into shards",
    "Pack the files into shards that are read in sequence",
    "Many small reads become few large ones.",
    "rewriting the data set",
    "Samples are shuffled as shards and in a buffer, no longer one by one.",
    reorders=True,
)
LIGHTER_DATASET: Final = Fix(
    "lighter-dataset",
    "A lighter data set object",
    "Keep annotations out of the data set object: arrays on disk, or loaded in the worker",
    "Less is pickled, sent and unpickled when a worker starts.",
)
ARRAYS: Final = Fix(
    "arrays",
    "Arrays instead of Python objects",
    "Keep annotations in arrays, not in lists or dictionaries",
    "Reference counts no longer copy the data set's memory into each worker.",
)
SPLIT_STREAM: Final = Fix(
    "split-stream",
    "Split the stream among workers",
    "Give each worker its part of an iterable data set by get_worker_info()",
    "Each sample is delivered once per epoch and not once per worker.",
    harm="An epoch holds fewer samples than before: learning-rate schedules by step must follow.",
    reorders=True,
)
RAM: Final = Fix(
    "ram",
    "The data in RAM",
    "Keep the data set in memory",
    "Samples come from memory and not from storage.",
    "memory for the whole data set",
    "A data set larger than free memory drives other programs into swap.",
)
FASTER_STORAGE: Final = Fix(
    "faster-storage",
    "Faster storage",
    "Move the data to faster storage",
    "Each read takes less time.",
    "money, and copying the data set",
    no_trial="No command tries it: copy the data, and repeat the run with their new place.",
)
FREE_CORES: Final = Fix(
    "free-cores",
    "No other programs on these cores",
    "Stop the other programs on these cores, or give this job cores of its own",
    "The job gets the time that other programs took.",
    harm="Other programs get less, or stop.",
    no_trial="No command tries it: the other programs are not pipeprof's to stop.",
)
CHEAPER_DECODE: Final = Fix(
    "cheaper-decode",
    "Cheaper decoding",
    "Decode only what is used: fewer frames, a lower resolution (JPEG draft mode), or store smaller samples",
    "A sample takes less CPU time to decode.",
    harm="Samples lose detail that a crop or resize would have used.",
    at_line=True,
)
CHEAPER_TRANSFORM: Final = Fix(
    "cheaper-transform",
    "Cheaper transforms",
    "Use a faster implementation; convert and normalise whole batches on the accelerator",
    "A sample takes less CPU time to transform.",
    at_line=True,
)
CHEAPER_COLLATE: Final = Fix(
    "cheaper-collate",
    "Cheaper collating",
    "Build batches from tensors or arrays (torch.stack, numpy.stack), not from lists of numbers",
    "A batch takes less CPU time to put together, and holds its worker's GIL for less time.",
    at_line=True,
)
CHEAPER_WORK: Final = Fix(
    "cheaper-work",
    "Cheaper work per sample",
    "Make the data set's own code cheaper, or do it once in advance",
    "A sample takes less CPU time in the data set's own code.",
    "memory or storage for what is made in advance",
    at_line=True,
)
LIGHTER_TRANSFER: Final = Fix(
    "lighter-transfer",
    "Smaller batches between processes",
    "Send less between processes: few large uint8 tensors, converted on the device; no Python objects",
    "Fewer bytes are pickled, sent and unpickled for each batch.",
)
LOOP: Final = Fix(
    "loop",
    "Less work in the training loop",
    "Take work other than training out of the loop: into the workers, done beforehand, or less often",
    "The loop asks for the next batch, and starts the next step, sooner.",
    at_line=True,
)
OWN_PROCESS: Final = Fix(
    "own-process",
    "A process for the other thread's work",
    "Move what the other thread computes in Python into a process of its own, or let it compute less often",
    "The training thread no longer shares its interpreter with that work.",
    "the memory of one more process",
    no_trial="No command tries it: the work is the program's own.",
)
UNBLOCK: Final = Fix(
    "unblock",
    "A lock that is held for less time",
    "Hold the lock for less time, or give each worker its own copy of what it guards",
    "Workers no longer wait for one another.",
    harm="What a lock guards may be corrupted if several workers change it at once.",
    no_trial="No command tries it: the lock is the program's own.",
    at_line=True,
)
MORE_CORES: Final = Fix(
    "more-cores",
    "More cores",
    "Use more cores or a higher CPU quota, or make the work on each sample cheaper",
    "More batches are made at the same time, given as many more workers.",
    "money",
    no_trial="No command tries it: the cores are not there.",
)
NONE: Final = Fix("none", "Nothing to fix", "Change nothing in the loader", "Nothing.")

FIXES: Final = (
    PERSISTENT_WORKERS,
    DEEPER_PREFETCH,
    OUT_OF_ORDER,
    FEWER_WORKERS,
    NO_WORKERS,
    MORE_WORKERS,
    ONE_THREAD,
    AFFINITY,
    FORK,
    FILE_SYSTEM_SHARING,
    GC_FREEZE,
    ONE_ITERATOR,
    PIN,
    DEVICE_PREFETCH,
    NO_READ_AHEAD,
    KEEP_OPEN,
    BATCH_FETCH,
    CHEAPER_SAMPLER,
    SMALLER_CHUNKS,
    SHARDS,
    LIGHTER_DATASET,
    ARRAYS,
    SPLIT_STREAM,
    RAM,
    FASTER_STORAGE,
    FREE_CORES,
    CHEAPER_DECODE,
    CHEAPER_TRANSFORM,
    CHEAPER_COLLATE,
    CHEAPER_WORK,
    LIGHTER_TRANSFER,
    LOOP,
    OWN_PROCESS,
    UNBLOCK,
    MORE_CORES,
    NONE,
)
"""All fixes, the cheapest to carry out first."""
BY_WORD: Final = {fix.word: fix for fix in FIXES}
