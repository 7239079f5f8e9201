"""What the owners of time are called, which colour each has everywhere, and how to read each number.

The colours follow Okabe and Ito's set for colour-blind readers, darkened until white or black text on each
has a contrast of at least 4.5; neighbours also differ in lightness. One owner, one colour: page, pictures,
terminal, timeline.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32


class Owner(NamedTuple):
    """An owner as the report shows it."""

    label: str
    colour: str
    terminal: str
    """The nearest of the terminal's own colours."""
    how: str
    """How to read its time, in one sentence."""


_OWNERS: Final[dict[str, Owner]] = {
    "accelerator": Owner("computing", "#8b92a0", "white", "The accelerator worked. More here is better."),
    "h2d": Owner(
        "copying to the device",
        "#4ea3dc",
        "bright_blue",
        "Host-to-device copies with no step to hide behind.",
    ),
    "storage": Owner(
        "storage", "#0a6ebd", "blue", "Bytes were on their way from the disk, the network or the page cache."
    ),
    "decode": Owner("decode", "#e09b00", "yellow", "CPU time that turned bytes into samples."),
    "transform": Owner("transforms", "#087a57", "green", "CPU time of the transforms, each by its name."),
    "collate": Owner("collate", "#ae4c93", "magenta", "Samples were joined into a batch."),
    "stage": Owner("your stages", "#8c6d1f", "bright_yellow", "Code that you marked with `stage(...)`."),
    "getitem": Owner("__getitem__", "#6b8e23", "bright_green", "Time inside the dataset, in no known stage."),
    "transfer": Owner(
        "worker to main", "#7a4fa3", "bright_magenta", "Finished batches travelled to the main process."
    ),
    "pin": Owner("pinning", "#2a7f9e", "cyan", "The pin-memory thread copied batches to page-locked memory."),
    "cpu-contention": Owner(
        "waiting for a core", "#8f3b1b", "red", "Workers were ready to run and had no CPU core."
    ),
    "blocked": Owner("blocked", "#4a5568", "bright_black", "Locks, sleeps or rate limits in the dataset."),
    "straggler": Owner(
        "stragglers", "#d4668f", "bright_red", "A late batch held up others that were already finished."
    ),
    "startup": Owner("worker start-up", "#a3814f", "bright_cyan", "Workers were being started."),
    "main": Owner(
        "the loop's own code", "#5b6b8c", "bright_white", "Python between steps: logging, `.item()`."
    ),
    "collective": Owner(
        "waiting for other ranks", "#7c5c7a", "magenta", "This rank met the others after a step, and waited."
    ),
    "unknown": Owner("unknown", "#9aa1ab", "bright_black", "Time that no record explains."),
    "others": Owner("all others", "#9aa1ab", "bright_black", "Owners of less than 0.05 % each."),
    "waiting": Owner("waiting for data", "#d1480c", "red", "The accelerator had nothing to do."),
    "idle": Owner("otherwise idle", "#c3c8d0", "bright_black", "Idle, but not for want of a batch."),
}

_SHADES: Final = {
    "transform": ("#087a57", "#55ab8b", "#056045", "#8cc9b0", "#2f7a4a"),
    "stage": ("#8c6d1f", "#b89a4e", "#66500f", "#d0bb85"),
}
"""Single transforms and stages differ in shade, each by its own name."""
_USUAL: Final = ("RandomResizedCrop", "RandomHorizontalFlip", "Normalize", "ToTensor", "ToDtype", "Resize")
"""Transforms that often stand together and so must not share a shade."""

ORDER: Final = tuple(_OWNERS)
"""The order of owners in bars and tables: the accelerator first, then along the way of the data."""

DEVICE_OWNERS: Final = ("accelerator", "main", "h2d", "collective")
"""Owners whose time is no stall."""


_SAME: Final = {"read": "storage", "stage:getitem": "getitem"}


def canonical(name: str) -> str:
    """The owner that a stage's time belongs to."""
    return _SAME.get(name, name)


def family(owner: str) -> str:
    """`transform:Resize` is a `transform`."""
    head = canonical(owner).partition(":")[0]
    return head if head in _OWNERS else "unknown"


def owner(name: str) -> Owner:
    """How the report shows the owner or stage `name`; names of users' own are kept as they are."""
    name = canonical(name)
    known = _OWNERS[family(name)]
    head, _, own = name.partition(":")
    if own:
        shades = _SHADES.get(head, (known.colour,))
        place = _USUAL.index(own) if own in _USUAL else crc32(own.encode())
        return known._replace(label=own, colour=shades[place % len(shades)])
    return known if name in _OWNERS else known._replace(label=name)


def colour(name: str) -> str:
    """The colour of an owner or stage, the same in every output."""
    return owner(name).colour


def rank(name: str) -> tuple[int, str]:
    """Sort key: the order along the way of the data, names of one family together."""
    return (ORDER.index(family(name)), name)


_INKS: Final = ("#ffffff", "#14171c")


def ink(background: str) -> str:
    """White or near-black, whichever reads better on `background` (WCAG 2 contrast)."""
    return max(_INKS, key=lambda text: contrast(text, background))


def contrast(one: str, two: str) -> float:
    """WCAG 2 contrast of two colours, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


BANDS: Final = {
    "not": "not input-bound",
    "moderately": "moderately input-bound",
    "highly": "highly input-bound",
}
BANDS_HOW: Final = (
    "Below 5 % stall a run is not input-bound, from 5 % moderately, from 20 % highly: "
    "the bands of TensorFlow Profiler's input-pipeline analyser."
)

UTILISATION: Final = {
    "emulated": (
        "accelerator utilisation (emulated)",
        "Compute time over run time, as MLPerf Storage defines AU. The accelerator is emulated: "
        "a queue with a step time, no real device.",
    ),
    "cuda-events": (
        "device busy",
        "Share of the wall time in which a step ran, on the device's own clock. "
        "Gaps between the kernels of one step count as busy.",
    ),
    "loop-body": (
        "loop busy",
        "No device clock was observed: the time between taking a batch and asking for the next "
        "counts as the accelerator's.",
    ),
}


def utilisation(kind: str | None) -> tuple[str, str]:
    """Name and how-to-read of the utilisation figure."""
    return UTILISATION.get(kind or "", ("utilisation", "How it was measured was not observed."))


def emulated_label(name: str) -> str:
    """A chip's text for one emulated part, such as `storage: hdd-7200`."""
    part, _, which = name.partition(": ")
    return f"{part} emulated: {which}" if which else f"{part} emulated"


FIXES: Final = {
    "more-workers": "More workers",
    "fewer-workers": "Fewer workers",
    "deeper-prefetch": "A larger prefetch factor",
    "out-of-order": "Batches in the order they are done",
    "persistent-workers": "Keep the workers between epochs",
    "ram": "The data in RAM",
    "faster-storage": "Faster storage",
    "shards": "Files packed into shards",
    "pin": "Page-locked batches, copied without blocking",
    "device-prefetch": "The next batch copied on a side stream",
    "cheaper-decode": "Cheaper decoding",
    "cheaper-transform": "Cheaper transforms",
    "lighter-transfer": "Fewer bytes between the processes",
    "more-cores": "More cores",
    "free-cores": "Free the cores that others take",
    "loop": "Nothing but training in the loop",
}
"""The fixes of a verdict, for when none was predicted."""
_KNOBS: Final = {
    "": "",
    "loader.workers": "workers",
    "loader.prefetch": "prefetch",
    "loader.batch_size": "batch size",
    "storage.tier": "tier",
    "accelerator.step_ms": "step ms",
    "data.format": "format",
}


def knob(key: str) -> str:
    """A dotted key of a scenario as a person says it."""
    return _KNOBS.get(key, key)
