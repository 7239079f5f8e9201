"""The verdict that was given for a run, kept beside its record with the fix that a prediction chose.

A later reader that does not predict names the same fix as the run's page, and a list of many runs shows the
result of each without analysing them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeprof.record.added.json_record import read_record, write_record

CHOICE_JSON: Final = "choice.json"
_SCHEMA: Final = 1

FixBasis = Literal["forecast", "ledger"]
"""Source of a fix: predicted gains, or the owner of the stall alone."""


@dataclass(frozen=True, slots=True)
class RecordedChoice:
    """A fix by its word, the cause (with its detail) for which it was chosen, and the two main figures."""

    cause: str
    detail: str | None
    fix: str
    stall_share: float | None = None
    throughput_samples_per_s: float | None = None
    mechanism: str | None = None
    wall_ns: int | None = None
    """Measured time; for a job, that of all ranks together. None in records from before it was kept."""
    fix_basis: FixBasis = "forecast"


def read_choice(directory: Path) -> RecordedChoice | None:
    """Read the choice recorded in a run directory; None if there is none that can be read."""
    return read_record(directory / CHOICE_JSON, RecordedChoice, _SCHEMA)


def write_choice(directory: Path, choice: RecordedChoice) -> None:
    """Record a choice in a run directory; in one that cannot be written to, nothing is kept."""
    with suppress(OSError):
        write_record(directory / CHOICE_JSON, choice, _SCHEMA)
