"""Makeup of a step on its device: forward, backward, optimiser, collectives, and kernels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from pipeprof.passes import Ints
from pipeprof.record.reader import Run
from pipeprof.record.step_times import PARTS
from pipeprof.timeline import ints

_COLLECTIVE: Final = re.compile(r"(?i)nccl|rccl|oneccl|hccl|xccl")
"""Names of the libraries whose kernels are the collectives."""


class StepPart(NamedTuple):
    """Part of a step."""

    name: str
    step_ns: float
    """Nanoseconds of an average step."""
    share: float
    """Share of the time of all parts."""


class KernelTime(NamedTuple):
    """Kernel of one name, in all steps that were traced."""

    name: str
    wall_ns: int
    times: int
    share: float
    """Share of the time of all kernels."""


@dataclass(frozen=True)
class Makeup:
    """Insides of the steps, as far as observed; empty if nothing was."""

    parts: tuple[StepPart, ...] = ()
    steps: int = 0
    """Steps of which the parts were seen."""
    kernels: tuple[KernelTime, ...] = ()
    """The longest first."""
    traced_steps: int = 0
    """Steps of which the kernels were traced."""
    on_device: bool = False
    """False if the kernels are operators of the CPU."""

    @property
    def collective_share(self) -> float | None:
        """Return the share of kernel time in collectives; None if no kernel of a device was traced."""
        if not self.on_device:
            return None
        return sum(each.share for each in self.kernels if _COLLECTIVE.search(each.name))


def read_makeup(run: Run) -> Makeup:
    """Read parts and kernels of a run. Parts of warm-up steps count only if there are no others."""
    parts, steps = _parts(run)
    kernels, on_device = _kernels(run)
    return Makeup(parts, steps, kernels, _traced_steps(run), on_device)


def _parts(run: Run) -> tuple[tuple[StepPart, ...], int]:
    table = run.table("parts")
    if table.num_rows == 0:
        return (), 0
    steps = run.table("steps")
    warm = ints(steps["step"])[np.array(steps["warmup"].to_pylist(), bool)]
    number = ints(table["step"])
    chosen = ~np.isin(number, warm)
    if not chosen.any():
        chosen[:] = True
    length = (ints(table["end_ns"]) - ints(table["start_ns"]))[chosen]
    count = len(np.unique(number[chosen]))
    total = _sums(np.array(table["part"].to_pylist(), object)[chosen].tolist(), length)
    known = [name for name in PARTS if name in total]
    whole = sum(total[name] for name in known) or 1
    return tuple(StepPart(name, total[name] / count, total[name] / whole) for name in known), count


def _sums(names: Sequence[str], length: Ints) -> dict[str, int]:
    total: dict[str, int] = {}
    for name, ns in zip(names, length.tolist(), strict=True):
        total[name] = total.get(name, 0) + ns
    return total


def _kernels(run: Run) -> tuple[tuple[KernelTime, ...], bool]:
    table = run.table("kernels")
    if table.num_rows == 0:
        return (), False
    names, length = kernel_names(table), ints(table["wall_ns"])
    total = _sums(names, length)
    count = _sums(names, np.ones(len(names), np.int64))
    whole = sum(total.values()) or 1
    longest = sorted(total, key=lambda name: -total[name])
    times = tuple(KernelTime(name, total[name], count[name], total[name] / whole) for name in longest)
    return times, table["device"].null_count < table.num_rows


def kernel_names(table: Any) -> list[str]:
    """Return the name of each row of `kernels`."""
    return [name or "unnamed" for name in table["kernel"].to_pylist()]


def _traced_steps(run: Run) -> int:
    events = run.table("events")
    for kind, detail in zip(events["kind"].to_pylist(), events["detail"].to_pylist(), strict=True):
        if kind == "kernels_traced" and (numbers := re.fullmatch(r"(\d+) (\d+)", detail or "")):
            first, last = map(int, numbers.groups())
            return max(0, last - first + 1)
    return 0
