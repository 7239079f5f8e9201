"""Ray Data's own statistics of the operators that made the batches: how long its tasks took.

They are read from private parts of Ray 2.60; if a version has others, they are not observed. Nothing is
imported: a program that iterates Ray Data has loaded it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from pipeprof.record.meta import OperatorMeta
from pipeprof.units import NS_PER_S

NAME: Final = "Ray Data"
PATIENCE_S: Final = 5.0
"""Seconds that the actor which hands blocks to the ranks has for its answer."""
Statistics = Callable[[], "tuple[OperatorMeta, ...] | None"]
"""Reads the operators of the pass that ended last; None if they cannot be read."""


def statistics_of(iterable: Any) -> Statistics | None:
    """Return what reads the statistics of the Ray Data behind an iterable; None for anything that is not
    Ray's."""
    data = sys.modules.get("ray.data")
    try:
        iterator = None if data is None else _iterator_behind(iterable, data.DataIterator)
    except Exception:  # objects of the user's may be of any kind
        return None
    return None if iterator is None else partial(_read, iterator)


def _iterator_behind(iterable: Any, kind: type) -> Any:
    """Return the `DataIterator` whose batches an iterable gives: the result of `iter_batches` holds it in a
    function of its own."""
    for value in vars(iterable).values():
        for cell in getattr(value, "__closure__", None) or ():
            if isinstance(cell.cell_contents, kind):
                return cell.cell_contents
    return None


def _read(iterator: Any) -> tuple[OperatorMeta, ...] | None:
    try:
        ray = sys.modules["ray"]
        if not ray.is_initialized():  # asking an actor would start it anew
            return None
        coordinator = getattr(iterator, "_coord_actor", None)
        if coordinator is None:
            dataset = iterator._base_dataset
            summary = getattr(dataset, "get_stats_summary", dataset._get_stats_summary)()
        else:  # the ranks of Ray Train share one data set: of the tasks for all of them
            summary = ray.get(coordinator.stats.remote(), timeout=PATIENCE_S).to_summary()
        return tuple(_operators(summary)) or None
    except Exception:  # another version's statistics, or an actor that is gone
        return None


def _operators(summary: Any) -> Iterator[OperatorMeta]:
    """Give the operators along the way of the data."""
    for parent in summary.parents:
        yield from _operators(parent)
    for operator in summary.operators_stats:
        yield OperatorMeta(
            str(operator.operator_name),
            _nanoseconds(_sum(operator.wall_time)),
            _nanoseconds(_sum(operator.cpu_time)),
            _whole(_sum(operator.output_num_rows)),
            _whole(getattr(getattr(operator, "task_rows", None), "count", None)),
        )


def _sum(figure: Any) -> float | None:
    """Return the sum of a summary, which is a dictionary in older versions."""
    return figure.get("sum") if isinstance(figure, dict) else getattr(figure, "sum", None)


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * NS_PER_S)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def added(before: tuple[OperatorMeta, ...], more: tuple[OperatorMeta, ...]) -> tuple[OperatorMeta, ...]:
    """Add the figures of one pass to those of the passes before; an operator is known by its name and place.

    What one of them lacks is not observed of all.
    """
    if [each.name for each in before] != [each.name for each in more]:
        return before or more
    return tuple(
        OperatorMeta(
            a.name,
            _both(a.wall_ns, b.wall_ns),
            _both(a.cpu_ns, b.cpu_ns),
            _both(a.rows, b.rows),
            _both(a.tasks, b.tasks),
        )
        for a, b in zip(before, more, strict=True)
    )


def _both(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
