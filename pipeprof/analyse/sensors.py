"""What the telemetry of a run says about its measured window."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np

from pipeprof.pipeline import Window, ints
from pipeprof.trace import Run

_STATE: Final = re.compile(r"worker\d+\.state\.(\w+)")
WAITING: Final = ("disk", "lock", "socket", "sleep", "pipe")
"""States of a worker that is off its core for a known reason (`measure.worker_state`)."""


class Sensed(NamedTuple):
    """Means over a window; None, or missing, where no sensor told."""

    own_cores: float | None
    """Cores that the run's processes kept busy."""
    other_cores: float | None
    """Cores that everything else on the machine kept busy."""
    states: dict[str, float]
    """Of the looks at workers that were off their core while making a batch: shares of `WAITING`."""


def sense(run: Run, window: Window) -> Sensed:
    """Read the telemetry of `window`."""
    means, states = _means(run, window)
    known = [means[name] for name in ("cpu.main", "cpu.workers") if name in means]
    own = sum(known) if known else None
    machine = means.get("cpu.machine")
    others = None if own is None or machine is None else max(0.0, machine - own)
    waiting = {state: states[state] for state in WAITING if state in states}
    total = sum(waiting.values())
    return Sensed(own, others, {state: share / total for state, share in waiting.items()} if total else {})


def _means(run: Run, window: Window) -> tuple[dict[str, float], dict[str, float]]:
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for piece in run.pieces("telemetry", ("time_ns", "sensor", "value")):
        times = ints(piece["time_ns"])
        inside = (times >= window.start_ns) & (times <= window.end_ns)
        names = np.asarray(piece["sensor"].cast("string").to_numpy(), dtype=object)[inside]
        values = piece["value"].to_numpy()[inside]
        for name in set(names.tolist()):
            mine = values[(names == name) & ~np.isnan(values)]
            sums[name] += float(mine.sum())
            counts[name] += len(mine)
    states: dict[str, float] = defaultdict(float)
    for name, total in sums.items():
        if match := _STATE.fullmatch(name):
            states[match[1]] += total
    return {name: total / counts[name] for name, total in sums.items() if counts[name]}, states
