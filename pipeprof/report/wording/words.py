"""Drawing of the vocabulary's words: each owner's colour and shade, the same in every output.

One owner, one colour: page, pictures, terminal, timeline.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from pipeprof.vocabulary import owners


class Drawn(NamedTuple):
    """An owner, or another part of a chart, as the report shows it."""

    label: str
    colour: str
    terminal: str
    """The nearest of the terminal's own colours."""
    how: str
    """Instructions for reading its time, in one sentence."""


WAITING: Final = "waiting"
MASKED: Final = "masked"
IDLE: Final = "idle"
OTHERS: Final = "others"
_PARTS: Final = {
    OTHERS: Drawn("all others", "#9aa1ab", "bright_black", "Owners of less than 0.05% each."),
    WAITING: Drawn("waiting for data", "#d1480c", "red", "The training step had no batch."),
    MASKED: Drawn("in next(), device busy", "#efb79f", "bright_red", "The accelerator still had work."),
    IDLE: Drawn("otherwise idle", "#c3c8d0", "bright_black", "Idle, but not for want of a batch."),
}
"""Parts of charts that are not owners."""
_SHADES: Final = {
    owners.TRANSFORM: ("#087a57", "#55ab8b", "#056045", "#8cc9b0", "#2f7a4a"),
    owners.STAGE: ("#8c6d1f", "#b89a4e", "#66500f", "#d0bb85"),
    owners.RANK: ("#a9899f", "#5a3d56", "#c9b0c3"),
}
"""Single transforms, stages and ranks that others waited for differ in shade, each by its name or number."""
_USUAL: Final = ("RandomResizedCrop", "RandomHorizontalFlip", "Normalize", "ToTensor", "ToDtype", "Resize")
"""Transforms that often stand together and so must not share a shade."""


def drawn(word: str) -> Drawn:
    """Return how the report shows an owner or a part of a chart; names of users' own are kept as they are."""
    if word in _PARTS:
        return _PARTS[word]
    known, name = owners.record_of(word), owners.name_in(word)
    colour = known.colour
    if name and known in _SHADES:
        colour = _SHADES[known][_place(name) % len(_SHADES[known])]
    return Drawn(owners.label_of(word), colour, known.terminal, known.how)


def _place(name: str) -> int:
    """Return a number of a transform, a stage or a rank, so that those that often stand together differ."""
    if name in _USUAL:
        return _USUAL.index(name)
    return int(name) if name.isdecimal() else crc32(name.encode())


def drawn_stage(stage: str) -> Drawn:
    """Return how the report shows a stage of a batch's making: as its owner."""
    return drawn(owners.of_stage(stage))


def stage_order(stage: str) -> tuple[int, str]:
    """Return a sort key for stages: the order of their owners."""
    return owners.order_of(owners.of_stage(stage))


def colour(word: str) -> str:
    """Return the colour of an owner or a part of a chart, the same in every output."""
    return drawn(word).colour


_INKS: Final = ("#ffffff", "#14171c")


def ink(background: str) -> str:
    """Return white or near-black, whichever reads better on `background` (WCAG 2 contrast)."""
    return max(_INKS, key=lambda text: contrast(text, background))


def contrast(first: str, two: str) -> float:
    """Return the WCAG 2 contrast of two colours, 1 to 21."""
    light, dark = sorted((_luminance(first), _luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def emulated_label(name: str) -> str:
    """Return a chip's text for one emulated part: `emulated storage: hdd-7200`."""
    return f"emulated {name}"


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
    """Return a dotted key of a scenario as a person says it."""
    return _KNOBS.get(key, key)
