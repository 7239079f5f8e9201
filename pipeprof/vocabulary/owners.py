"""Owners of time: the places that a nanosecond of a run is charged to.

Some owners carry a name behind a colon: `transform:Resize`, `stage:tokenize`, `storage:device`,
`rank:2:storage`. This module alone takes such words apart and puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """Owner: a place that time is charged to."""

    name: str
    """The word in ledgers; of a family with names of its own, the part before the colon."""
    label: str
    """Its name in tables and legends."""
    how: str
    """Way to read its time, in one sentence."""
    limits: str
    """Text that completes "Limited by ..." if it owns most of the critical path; `{name}` is the name behind
    the colon."""
    colour: str
    terminal: str
    """The nearest of a terminal's own colours."""
    is_stall: bool = True
    """True if the accelerator lacked a batch of its own meanwhile."""
    takes_name: bool = False
    """True if its words carry a name: `transform:Resize`."""
    parts: tuple[str, ...] = ()
    """Names behind the colon of a fixed family, which ledgers add up under `name`."""

    @property
    def family(self) -> str:
        """Return the part of `name` before the colon: `stage` of `stage:getitem`."""
        return _split(self.name)[0]

    def called(self, name: str) -> str:
        """Return the word of this family for `name`: `transform:Resize`."""
        return f"{self.name}:{name}"


def _split(word: str) -> tuple[str, str]:
    head, _, name = word.partition(":")
    return head, name


DEVICE: Final = "device"
QUEUEING: Final = "queueing"
NETWORK: Final = "network"
CLIENT: Final = "client"
FIRST_BYTE: Final = "first-byte"
THROTTLED: Final = "throttled"
RETRY: Final = "retry"
"""Parts of the time that reads take; from `client` on they are of remote places only."""

# The colours follow Okabe and Ito's set for colour-blind readers, darkened until white or black text on each
# has a contrast of at least 4.5; neighbours also differ in lightness.
ACCELERATOR: Final = Owner(
    "accelerator",
    "computing",
    "The training step ran. More here is better.",
    "the training step",
    "#8b92a0",
    "white",
    is_stall=False,
)
H2D: Final = Owner(
    "h2d",
    "copying to the device",
    "Host-to-device copies with no step to hide behind.",
    "the copy to the device",
    "#4ea3dc",
    "bright_blue",
    is_stall=False,
)
STORAGE: Final = Owner(
    "storage",
    "storage",
    "Bytes were on their way from the disk, the network or the page cache.",
    "the storage",
    "#0a6ebd",
    "blue",
    parts=(DEVICE, QUEUEING, NETWORK, CLIENT, FIRST_BYTE, THROTTLED, RETRY),
)
STORAGE_DEVICE: Final = STORAGE.called(DEVICE)
STORAGE_QUEUEING: Final = STORAGE.called(QUEUEING)
STORAGE_NETWORK: Final = STORAGE.called(NETWORK)
STORAGE_THROTTLED: Final = STORAGE.called(THROTTLED)
STORAGE_RETRY: Final = STORAGE.called(RETRY)
DECODE: Final = Owner(
    "decode",
    "decode",
    "CPU time that turned bytes into samples.",
    "the CPU: decode",
    "#e09b00",
    "yellow",
)
TRANSFORM: Final = Owner(
    "transform",
    "transforms",
    "CPU time of the transforms, each by its name.",
    "the CPU: {name}",
    "#087a57",
    "green",
    takes_name=True,
)
COLLATE: Final = Owner(
    "collate",
    "collate",
    "Samples were joined into a batch.",
    "the CPU: collate",
    "#ae4c93",
    "magenta",
)
STAGE: Final = Owner(
    "stage",
    "your stages",
    "Code that you marked with `stage(...)`.",
    "the CPU: {name}",
    "#8c6d1f",
    "bright_yellow",
    takes_name=True,
)
GETITEM: Final = Owner(
    "stage:getitem",
    "__getitem__",
    "Time inside the dataset, in no known stage.",
    "the CPU: __getitem__",
    "#6b8e23",
    "bright_green",
)
ITER: Final = Owner(
    "stage:iter",
    "__iter__",
    "Time inside an iterable dataset's iterator, in no known stage.",
    "the CPU: __iter__",
    "#6b8e23",
    "bright_green",
)
TRANSFER: Final = Owner(
    "transfer",
    "worker to main",
    "Finished batches travelled to the main process.",
    "handing batches over",
    "#7a4fa3",
    "bright_magenta",
)
PIN: Final = Owner(
    "pin",
    "pinning",
    "The pin-memory thread copied batches to page-locked memory.",
    "the pin-memory thread",
    "#2a7f9e",
    "cyan",
)
CPU_CONTENTION: Final = Owner(
    "cpu-contention",
    "waiting for a core",
    "Workers were ready to run and had no CPU core.",
    "the cores",
    "#8f3b1b",
    "red",
)
BLOCKED: Final = Owner(
    "blocked",
    "blocking calls",
    "Locks, sleeps, sockets or rate limits in the data set.",
    "locks and sleeps",
    "#4a5568",
    "bright_black",
)
STRAGGLER: Final = Owner(
    "straggler",
    "late batches",
    "A late batch held up others that were already finished.",
    "late batches",
    "#d4668f",
    "bright_red",
)
STARTUP: Final = Owner(
    "startup",
    "worker start-up",
    "Workers were being started.",
    "starting workers",
    "#a3814f",
    "bright_cyan",
)
MAIN: Final = Owner(
    "main",
    "code of loop and next()",
    "Python between steps, as logging and `.item()`, and in next() apart from the making of batches.",
    "the loop's Python",
    "#5b6b8c",
    "bright_white",
    is_stall=False,
)
COLLECTIVE: Final = Owner(
    "collective",
    "waiting for other ranks",
    "This rank waited for the others after a step.",
    "waiting for the other ranks",
    "#7c5c7a",
    "magenta",
    is_stall=False,
)
RANK: Final = Owner(
    "rank",
    "other ranks",
    "This rank waited for another one, which was late.",
    "waiting for rank {name}",
    "#7c5c7a",
    "magenta",
    is_stall=False,
    takes_name=True,
)
OUTSIDE: Final = Owner(
    "outside",
    "between the loops",
    "No loop ran: a pause, or workers that started for the first time.",
    "time outside the loop",
    "#d9d9d6",
    "bright_black",
    is_stall=False,
)
"""Time that is tiled like all other and counted nowhere: no ledger has it."""
UNKNOWN: Final = Owner(
    "unknown",
    "unknown",
    "Time that no record explains.",
    "what no record explains",
    "#9aa1ab",
    "bright_black",
)

OWNERS: Final = (
    ACCELERATOR,
    H2D,
    STORAGE,
    DECODE,
    TRANSFORM,
    COLLATE,
    STAGE,
    GETITEM,
    ITER,
    TRANSFER,
    PIN,
    CPU_CONTENTION,
    BLOCKED,
    STRAGGLER,
    STARTUP,
    MAIN,
    COLLECTIVE,
    RANK,
    OUTSIDE,
    UNKNOWN,
)
"""All owners in the order of bars and tables: the accelerator first, then along the way of the data."""
_BY_NAME: Final = {owner.name: owner for owner in OWNERS}
_RANKS: Final = {owner.name: rank for rank, owner in enumerate(OWNERS)}

FIXED: Final[tuple[str, ...]] = tuple(
    word
    for owner in OWNERS
    if not owner.takes_name and owner not in (GETITEM, ITER)
    for word in ([owner.called(part) for part in owner.parts] or [owner.name])
)
"""Words of the owners that every run has, storage by its parts; `unknown` is the last."""

READ: Final = "read"
"""The stage of a batch's making that storage owns."""
UNNAMED: Final = "getitem"
"""The stage of a batch's making that lies inside the dataset and in no other stage, as it is recorded."""
STREAM: Final = "iter"
"""Name of that stage if the data set is iterable."""
STATE: Final = STAGE.called("state_dict")
"""Stage of a batch, after its making: the data set's state was taken, to travel with the batch."""
CODE: Final = (GETITEM.name, ITER.name)
"""Owners of the data set's own code without a name."""
OTHER_RANKS: Final = "others"
"""Name behind `rank:` of those that each held a rank up only a little."""


def record_of(word: str) -> Owner:
    """Return the record of an owner's word, or of its family if the word carries a name.

    An unknown word has the record `UNKNOWN`.
    """
    return _BY_NAME.get(word) or _BY_NAME.get(_split(word)[0], UNKNOWN)


def family_of(word: str) -> str:
    """Return the family of an owner's word: `transform` of `transform:Resize`."""
    return record_of(word).family


def name_in(word: str) -> str:
    """Return the name that an owner's word carries: `Resize` of `transform:Resize`; empty if none."""
    return _split(word)[1]


def label_of(word: str) -> str:
    """Return what tables and legends call an owner: users' own names as they are."""
    known, name = record_of(word), name_in(word)
    if word == known.name:
        return known.label
    if known is RANK:
        return _rank_label(word)
    return name or word


def _rank_label(word: str) -> str:
    rank, owner = rank_and_owner(word)
    return f"rank {rank}'s {label_of(owner)}" if owner else RANK.label


def limit_of(word: str) -> str:
    """Return what limits a run whose critical path `word` owns mostly: `the CPU: decode`."""
    return record_of(word).limits.format(name=name_in(word))


def is_stall(word: str) -> bool:
    """Return True if the accelerator lacked a batch of its own during the owner's time."""
    return record_of(word).is_stall


def order_of(word: str) -> tuple[int, str]:
    """Return a sort key: along the way of the data, words of one family together."""
    return _RANKS[record_of(word).name], word


def merged(word: str) -> str:
    """Return the word under which ledgers add up: `storage` of `storage:device`, others unchanged."""
    known = record_of(word)
    return known.name if known.parts else word


def of_stage(stage: str) -> str:
    """Return the owner of a stage of a batch's making, by the stage's name in the record."""
    if stage == READ:
        return STORAGE.name
    if stage in (DECODE.name, COLLATE.name) or _split(stage)[0] in (TRANSFORM.name, STAGE.name):
        return stage
    return STAGE.called(stage)


def waiting_for(rank: int | None, owner: str = "") -> str:
    """Return the owner of waiting for `rank`, late for `owner`; for several ranks without one."""
    return RANK.called(OTHER_RANKS) if rank is None else RANK.called(f"{rank}:{owner}")


def rank_and_owner(word: str) -> tuple[str, str]:
    """Return the rank of a word of `waiting_for`, and the owner that made it late, which may be empty."""
    return _split(name_in(word))
