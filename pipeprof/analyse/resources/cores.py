"""The speed of the cores while two runs were taken, and how much of their difference it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeprof import units
from pipeprof.vocabulary import causes, owners

WORTH_TELLING: Final = 0.02
"""Difference of the cores' speed below which it is noise."""
_ON_CORES: Final = (owners.TRANSFER.name, owners.MAIN.name, owners.CPU_CONTENTION.name)


@dataclass(frozen=True, slots=True)
class CoreSpeeds:
    """The speed of a run's cores relative to the base run's."""

    relative: float
    """Share by which they were faster; below 0 if they were slower."""
    explains: float | None
    """Change of the throughput that follows from it, as a share of the base's; None if the run's own work
    contradicts it."""
    work: float | None = None
    """Share by which making a batch took more CPU time, below 0 if less; None if that is not known."""

    @property
    def sentence(self) -> str:
        """Return the difference in words; empty if it is negligible."""
        if abs(self.relative) < WORTH_TELLING:
            return ""
        way = "faster" if self.relative > 0 else "slower"
        by, work = units.percent(abs(self.relative)), self.work or 0.0
        if self.explains is None:
            took = f"{units.percent(abs(work))} {'more' if work > 0 else 'less'} CPU time"
            return (
                f"the cores did a fixed piece of work {by} {way} in the second run, but a batch took {took}: "
                "what the machine explains is not known"
            )
        return (
            f"the cores were {by} {way} in the second run; that alone gives "
            f"{units.signed_percent(self.explains)} of throughput, which the difference told here includes"
        )

    def checked_by(self, work: float | None, interval: tuple[float, float] | None) -> CoreSpeeds:
        """Return the same, checked by the change of the CPU time of making a batch, with its interval.

        On faster cores it falls by as much, unless the work itself changed. Where it is sure that it fell or
        grew by less, or went the other way, the fixed piece of work may have been slowed by the run's own
        workers, or the batches by a memory that such a small piece does not touch: then nothing is explained.
        """
        if work is None or interval is None or abs(self.relative) < WORTH_TELLING:
            return CoreSpeeds(self.relative, self.explains, work)
        expected = 1 / (1 + self.relative) - 1
        most = interval[1] if expected > 0 else -interval[0]  # of a change that way
        is_less = most < abs(expected) - WORTH_TELLING
        return CoreSpeeds(self.relative, None if is_less else self.explains, work)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"relative": self.relative, "explains": self.explains}


def core_speeds(
    base_spin_ns: float | None, spin_ns: float | None, *paths_ns: Mapping[str, int]
) -> CoreSpeeds | None:
    """Compare the cores by the time of the same work; None if either run did not measure it.

    What lies on the critical path and needs a core takes longer on slower cores, the rest does not. The share
    is the mean of those of `paths_ns`, so that two runs tell the same in either order.
    """
    if not base_spin_ns or not spin_ns:
        return None
    speed = base_spin_ns / spin_ns
    on_cores = sum(_share_on_cores(path_ns) for path_ns in paths_ns) / len(paths_ns)
    return CoreSpeeds(speed - 1, 1 / (on_cores / speed + 1 - on_cores) - 1)


def _share_on_cores(path_ns: Mapping[str, int]) -> float:
    on_cores = sum(ns for owner, ns in path_ns.items() if _needs_core(owner))
    return on_cores / max(1, sum(path_ns.values()))


def _needs_core(owner: str) -> bool:
    return owner in _ON_CORES or (causes.is_cause(owner) and causes.record_of(owner) in causes.WORK)
