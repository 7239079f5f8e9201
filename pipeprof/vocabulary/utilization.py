"""Utilisation figures, by what stands for the accelerator's clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

UtilizationKind = Literal["emulated", "device-events", "loop-body"]


@dataclass(frozen=True, slots=True, eq=False)
class Utilization:
    """A kind of utilisation figure."""

    word: UtilizationKind
    label: str
    how: str
    """How to read the figure."""
    waiter: str
    """Subject of the sentence "... spent 80% of the time waiting": only a measured device is said to wait."""


EMULATED: Final = Utilization(
    "emulated",
    "accelerator utilisation (emulated)",
    "Compute time over run time, as MLPerf Storage defines AU. The accelerator is emulated: "
    "a queue with a step time, no real device.",
    "The emulated accelerator",
)
DEVICE_EVENTS: Final = Utilization(
    "device-events",
    "device busy",
    "Share of the wall time in which a step ran, on the device's own clock. "
    "Gaps between the kernels of one step count as busy.",
    "The GPU",
)
LOOP_BODY: Final = Utilization(
    "loop-body",
    "loop busy",
    "No device clock was observed: the time between taking a batch and asking for the next "
    "counts as the accelerator's.",
    "Your training loop",
)
UTILIZATIONS: Final = (EMULATED, DEVICE_EVENTS, LOOP_BODY)
_BY_WORD: Final = {kind.word: kind for kind in UTILIZATIONS}


def label_of(word: UtilizationKind | None) -> str:
    """Return a kind's label; "utilisation" if the kind was not observed."""
    return _BY_WORD[word].label if word else "utilisation"


def waiter_of(word: UtilizationKind | None) -> str:
    """Return who waited, as the subject of a sentence."""
    return _BY_WORD[word].waiter if word else "The accelerator"
