"""Turns the messages of the workers' aides into rows of `lines` and `counters`. Runs in the flush thread."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic_ns
from typing import Any, Final

import numpy.typing as npt

from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.levels import read_levels
from pipeprof.measure.probe.layout import COUNTER, NODE, SAMPLES, Kind
from pipeprof.measure.probe.ring import Ring
from pipeprof.measure.probe.sampling.call_tree import ROOT, CallTree
from pipeprof.record.names.counters import PRIVATE_BYTES
from pipeprof.record.schema import MAIN_PROCESS, MISSING

Row = tuple[Any, ...]
LINE_COLUMNS: Final = ("time_ns", "loader", "worker", "stage", "stack", "samples", "wall_ns", "cpu_ns")
COUNTER_COLUMNS: Final = ("time_ns", "loader", "epoch", "worker", "counter", "value")
STACK_BREAK: Final = "\n"
"""Between the lines of a stack, outermost first."""


class Paths:
    """The call paths of one process, by number, and the text of each stack."""

    def __init__(self) -> None:
        self._nodes: dict[int, tuple[int, str]] = {}
        self._stacks: dict[int, str] = {ROOT: ""}

    def add(self, number: int, parent: int, text: str) -> None:
        """Enter a call path."""
        self._nodes[number] = (parent, text)

    def stack(self, number: int) -> str:
        """Return the lines of a path, outermost first; without those whose record was lost."""
        text = self._stacks.get(number)
        if text is None:
            if number not in self._nodes:
                return ""
            parent, line = self._nodes[number]
            above = self.stack(parent)
            text = self._stacks[number] = f"{above}{STACK_BREAK}{line}" if above else line
        return text


class AideReader:
    """Drains the ring of the workers' aides of one iterator."""

    def __init__(self, ring: Ring, loader: int) -> None:
        self.ring = ring
        self._loader = loader
        self._paths = [Paths() for _ in range(ring.slots)]
        self._pieces: dict[tuple[int, int], list[bytes]] = {}

    def drain(self) -> tuple[list[Row], list[Row]]:
        """Return the new rows of `lines` and of `counters`."""
        now_ns = monotonic_ns()
        lines: list[Row] = []
        counters: list[Row] = []
        for slot in range(self.ring.slots):
            records = self.ring.drain(slot)
            if len(records) == 0:
                continue
            names = self.ring.names(slot)
            self._add_paths(slot, records)
            lines += self._lines(slot, records, names, now_ns)
            counters += counter_rows(records, self._loader, slot, names)
        return lines, counters

    def _add_paths(self, slot: int, records: npt.NDArray[Any]) -> None:
        for row in records[records["kind"] == Kind.NODE].view(NODE.dtype):
            key = (slot, int(row["epoch"]))
            pieces = self._pieces.setdefault(key, [])
            if row["seq"] == 0:
                pieces.clear()  # it is sent again, after the ring was full
            pieces.append(bytes(row["text"]).rstrip(b"\0"))
            text = b"".join(pieces).decode(errors="replace")
            self._paths[slot].add(key[1], int(row["parent"]), text)

    def _lines(self, slot: int, records: npt.NDArray[Any], names: list[str], now_ns: int) -> Iterator[Row]:
        for row in records[records["kind"] == Kind.SAMPLES].view(SAMPLES.dtype):
            stack = self._paths[slot].stack(int(row["epoch"]))
            figures = (int(row[name]) for name in ("samples", "wall_ns", "cpu_ns"))
            yield (now_ns, self._loader, slot, names[row["name"]], stack, *map(_observed, figures))


def counter_rows(records: npt.NDArray[Any], loader: int, worker: int, names: list[str]) -> list[Row]:
    """Return the rows of `counters` that are among a slot's records."""
    counters = records[records["kind"] == Kind.COUNTER].view(COUNTER.dtype)
    if len(counters) == 0:
        return []
    now_ns = monotonic_ns()
    columns = (counters[name].tolist() for name in ("epoch", "name", "value"))
    return [
        (now_ns, loader, epoch, worker, names[name], value)
        for epoch, name, value in zip(*columns, strict=True)
    ]


def private_bytes(counters: list[Row]) -> dict[int, int]:
    """Return the memory that each worker had to itself, by the last of its rows of `counters`."""
    return {row[3]: row[5] for row in counters if row[4] == PRIVATE_BYTES}


class TreeReader:
    """Takes the samples of a thread of this process from its `CallTree`."""

    def __init__(self) -> None:
        self._paths = Paths()

    def rows(self, tree: CallTree) -> list[Row]:
        """Return the new rows of `lines`. Called by the sampling thread, which owns the tree."""
        nodes, samples = tree.take()
        for node in nodes:
            self._paths.add(node.number, node.parent, node.frame.text)
        now_ns = monotonic_ns()
        return [
            (
                now_ns,
                None,
                MAIN_PROCESS,
                each.stage,
                self._paths.stack(each.node),
                each.samples,
                each.wall_ns,
                _observed(each.cpu_ns),
            )
            for each in samples
        ]


def own_counters(with_levels: bool) -> list[Row]:
    """Return the rows of `counters` of this process since the last call."""
    now_ns = monotonic_ns()
    counts = [*tally.take().items(), *tally.take_notes()]
    levels = read_levels().items() if with_levels else ()
    return [(now_ns, None, None, MAIN_PROCESS, name, value) for name, value in (*counts, *levels)]


def _observed(value: int) -> int | None:
    return None if value == MISSING else value
