"""Walks the pipeline's graph backwards: who owned each nanosecond of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeprof.pipeline import Window


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who owned the time of one window. Owners are the words of DESIGN §4; each map sums to `window.wall_ns`.

    An owner that is missing was measured as 0 or was not observed: `not_observed` tells which.
    """

    window: Window
    ledger_ns: dict[str, int] = field(default_factory=dict)
    """The accelerator's day: `accelerator` is its busy time, the rest is who kept it idle."""
    path_ns: dict[str, int] = field(default_factory=dict)
    """The critical path: what the run's duration is made of."""
    storage_split_ns: dict[str, int] = field(default_factory=dict)
    """`storage` of the ledger, split into `device`, `queueing`, `network`."""
    not_observed: tuple[str, ...] = ()

    @property
    def stall_ns(self) -> int:
        """Nanoseconds of the window in which the accelerator had nothing to do for want of a batch."""
        return sum(ns for owner, ns in self.ledger_ns.items() if owner not in ("accelerator", "main", "h2d"))
