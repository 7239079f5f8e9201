"""The operators of sources that keep statistics of their own, such as Ray Data: which took the most time.

Their tasks run alongside the loop and each other, so that their times say which is the largest, and not how
long the loop waited for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeprof.record.meta import OperatorMeta, RunMeta
from pipeprof.units import duration, percent


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """An operator, over all passes of the run."""

    name: str
    wall_ns: int
    """Time of its tasks, all together."""
    share: float
    """Share of the time of all operators' tasks."""
    cpu_ns: int | None
    rows: int | None
    tasks: int | None


def operator_times(meta: RunMeta) -> list[OperatorTime]:
    """Return the operators that made a run's batches, along the way of the data; empty if not observed."""
    by_place: dict[tuple[str, int, str], list[OperatorMeta]] = {}
    for loader in meta.loaders:
        for place, operator in enumerate(loader.operators):
            if operator.wall_ns is not None:
                by_place.setdefault((loader.name, place, operator.name), []).append(operator)
    walls = {key: sum(each.wall_ns or 0 for each in passes) for key, passes in by_place.items()}
    whole = sum(walls.values())
    if not whole:
        return []
    return [
        OperatorTime(
            key[2],
            walls[key],
            walls[key] / whole,
            _sum([each.cpu_ns for each in passes]),
            _sum([each.rows for each in passes]),
            _sum([each.tasks for each in passes]),
        )
        for key, passes in by_place.items()
    ]


def _sum(values: list[int | None]) -> int | None:
    seen = [value for value in values if value is not None]
    return sum(seen) if len(seen) == len(values) else None


def slowest_operator(meta: RunMeta) -> OperatorTime | None:
    """Return the operator whose tasks took the most time; None if none is known."""
    return max(operator_times(meta), key=lambda each: each.wall_ns, default=None)


def sentence(slowest: OperatorTime) -> str:
    """Return in words which operator is the slowest."""
    return (
        f"{percent(slowest.share)} of the time of the source's own tasks, {duration(slowest.wall_ns)}, "
        f"went into {slowest.name}"
    )
