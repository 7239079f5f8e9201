"""Analysis of the last seconds of a run that is being written, and running figures of all of it.

Only the ends of the streams are decoded: a look costs the same after an hour as after a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.analyse.live.tail import Tail
from pipeprof.analyse.why.lines import Line, parse_line
from pipeprof.passes import Ints
from pipeprof.record.columns import whole_numbers
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import Run, load
from pipeprof.record.remote import incoming
from pipeprof.record.schema import MISSING, TABLES
from pipeprof.record.streams import read_stream
from pipeprof.units import NS_PER_S

WINDOW_S: Final = 30.0
_TIMED: Final = {"lines": "time_ns", "counters": "time_ns", "telemetry": "time_ns", "events": "time_ns"}


class Totals(NamedTuple):
    """Figures of all steps that were read."""

    steps: int = 0
    samples: int = 0
    wait_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def wall_ns(self) -> int:
        """Time from the first request to the last take."""
        return self.last_ns - self.first_ns

    @property
    def samples_per_s(self) -> float | None:
        """Return samples a second; None before there are two steps."""
        return self.samples / self.wall_ns * NS_PER_S if self.wall_ns > 0 else None

    @property
    def wait_share(self) -> float | None:
        """Return the share of the time in which the loop waited for batches."""
        return self.wait_ns / self.wall_ns if self.wall_ns > 0 else None


class WorkerNow(NamedTuple):
    """Last that is known of a worker."""

    loader: int | None
    worker: int
    stage: str
    line: Line | None
    """The innermost; None where lines are not sampled."""
    private_bytes: int | None


class _WindowRun(Run):
    """The last seconds of a run, as a run of their own."""

    def __init__(self, directory: Path, meta: RunMeta, tables: Mapping[str, pa.Table]) -> None:
        super().__init__(directory, meta)
        self._tables.update(tables)


class LiveRun:
    """A run that is being written, followed from its directory. Raises `TraceError` where there is none."""

    def __init__(self, directory: Path, window_s: float = WINDOW_S) -> None:
        self.directory, self.window_ns = directory, round(window_s * NS_PER_S)
        self.run = load(directory)
        self._tails = {name: Tail(directory, name) for name in TABLES}
        self.all = Totals()
        self.window = Totals()
        self.ready: int | None = None
        """Batches that were ready at the last request."""
        self.ledger_ns: dict[str, int] = {}
        """Ledger of all windows since this began, each counted once."""
        self._counted_ns = 0

    def poll(self) -> bool:
        """Read what is new, at its URL too. Return whether the run still goes on."""
        incoming.refresh(self.directory)
        steps = self._tails["steps"]
        for tail in self._tails.values():
            new = tail.poll()
            if tail is steps:
                self._add_steps(new)
        if not steps.path.exists():
            self.run = load(self.directory)
        return self.run.status == "running" and not (self.directory / "steps.parquet").exists()

    def _add_steps(self, new: int) -> None:
        """Add the record batches that came to the figures of all steps."""
        steps = self._tails["steps"]
        if new > len(steps.chunks):  # a long run, at the begin
            for batch in islice(read_stream(steps.path), steps.batches):
                self.all = _added(self.all, batch)
        else:
            self.all = _added(self.all, steps.last(new))
        table = steps.last(1)
        if len(table) == 0:
            return
        now_ns = int(whole_numbers(table["take_ns"], MISSING).max())
        taken, _ = steps.since("request_ns", now_ns - self.window_ns)
        self.window = _added(Totals(), taken)
        ready = whole_numbers(table["ready_batches"], MISSING)
        self.ready = None if ready[-1] == MISSING else int(ready[-1])

    def analyse(self) -> Analysis | None:
        """Analyse the last seconds; None where they have no step."""
        steps = self._tails["steps"]
        last = steps.last(1)
        if len(last) == 0:
            return None
        now_ns = int(whole_numbers(last["take_ns"], MISSING).max())
        since_ns = now_ns - self.window_ns
        taken, chunks = steps.since("request_ns", since_ns)
        tables = {"steps": taken, **self._others(taken, chunks, since_ns)}
        analysis = analyse(_WindowRun(self.directory, self.run.meta, tables))
        if analysis.ledger is not None and now_ns - self._counted_ns >= self.window_ns:
            self._counted_ns = now_ns
            for owner, ns in analysis.ledger.ledger_ns.items():
                self.ledger_ns[owner] = self.ledger_ns.get(owner, 0) + ns
        return analysis

    def _others(self, taken: pa.Table, chunks: int, since_ns: int) -> dict[str, pa.Table]:
        keys = _keys(taken)
        tables: dict[str, pa.Table] = {}
        for name, tail in self._tails.items():
            if name == "steps":
                continue
            if name in _TIMED:
                whole = name == "events"  # they are few, and tell when each pass began
                tables[name], _ = tail.since(_TIMED[name], 0 if whole else since_ns)
                continue
            table = tail.last(2 * chunks + 2)
            if name in ("batches", "stages", "spans") and len(table):
                table = table.filter(pa.array(np.isin(_keys(table), keys)))
            tables[name] = table
        return tables

    def workers(self) -> list[WorkerNow]:
        """Return the last that is known of each worker."""
        now: dict[int, WorkerNow] = {}
        for row in self._tails["lines"].last(8).select(["loader", "worker", "stage", "stack"]).to_pylist():
            if row["worker"] is not None and row["worker"] >= 0:
                line = parse_line((row["stack"] or "").rpartition("\n")[2])
                now[row["worker"]] = WorkerNow(row["loader"], row["worker"], row["stage"] or "", line, None)
        counters = self._tails["counters"].last(8).select(["worker", "counter", "value"]).to_pylist()
        for row in counters:
            if row["counter"] == counters.PRIVATE_BYTES and row["worker"] in now:
                now[row["worker"]] = now[row["worker"]]._replace(private_bytes=row["value"])
        return [now[worker] for worker in sorted(now)]


def _added(totals: Totals, steps: Any) -> Totals:
    """Return the totals with some more steps."""
    if len(steps) == 0:
        return totals
    request, take, samples = (
        whole_numbers(steps[name], MISSING) for name in ("request_ns", "take_ns", "samples")
    )
    return Totals(
        totals.steps + len(take),
        totals.samples + int(samples[samples != MISSING].sum()),
        totals.wait_ns + int((take - request).sum()),
        totals.first_ns or int(request[0]),
        int(take[-1]),
    )


def _keys(table: pa.Table) -> Ints:
    """Return loader, epoch and seq of each row as one number."""
    loader, epoch, seq = (whole_numbers(table[name], 0) for name in ("loader", "epoch", "seq"))
    keys: Any = (loader.astype(np.int64) << 56) + (epoch.astype(np.int64) << 36) + seq
    return np.asarray(keys, np.int64)
