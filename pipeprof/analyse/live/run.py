"""Analysis of the last seconds of a run that is being written, and running figures of all of it.

Only the ends of the streams are decoded: a look costs the same after an hour as after a minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeprof.analyse.analysis import Analysis, analyse
from pipeprof.analyse.live.tail import Tail
from pipeprof.analyse.why.lines import Line, parse_line
from pipeprof.passes import Ints
from pipeprof.record.columns import flags, whole_numbers
from pipeprof.record.meta import RunMeta
from pipeprof.record.names import counters
from pipeprof.record.reader import Run, load
from pipeprof.record.remote import incoming
from pipeprof.record.schema import MISSING, RUN_JSON, TABLES
from pipeprof.units import NS_PER_S

WINDOW_S: Final = 30.0
_TIMED: Final = {"lines": "time_ns", "counters": "time_ns", "telemetry": "time_ns", "events": "time_ns"}
_MANY: Final = 100
"""Record batches from which three columns of the whole file are read sooner than all of each."""
_NEWEST: Final = 8
"""Record batches that show what each worker does now, if many have come."""


class StepTotals(NamedTuple):
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
    """The innermost; None if lines are not sampled."""
    private_bytes: int | None


class _WindowRun(Run):
    """The last seconds of a run, as a run of their own."""

    def __init__(self, directory: Path, meta: RunMeta, tables: Mapping[str, pa.Table]) -> None:
        super().__init__(directory, meta)
        self._tables.update(tables)


class LiveRun:
    """A run that is being written, followed from its directory. Raises `TraceError` if there is none."""

    def __init__(self, directory: Path, window_s: float = WINDOW_S) -> None:
        self.directory, self.window_ns = directory, round(window_s * NS_PER_S)
        self.run = load(directory)
        self._tails = {name: Tail(directory, name) for name in TABLES}
        self.all = StepTotals()
        self.window = StepTotals()
        self._recent: deque[StepTotals] = deque()
        """Figures of each flush of the last seconds."""
        self.ready: int | None = None
        """Batches that were ready at the last request."""
        self.ledger_ns: dict[str, int] = {}
        """Ledger of all windows since this began, each counted once."""
        self._counted_ns = 0
        self._workers: dict[int, WorkerNow] = {}
        self._counted_batches: dict[str, int] = {}
        """Record batches whose rows are known to the workers' state, by table."""
        self._version = (0, 0)
        self._is_silent = True
        """True if nothing came with the last look: the run may have ended, or its process been killed."""

    def poll(self) -> bool:
        """Read the new steps, at the run's URL too. Return whether it still goes on.

        All other tables are read when they are needed.
        """
        incoming.refresh(self.directory)
        self._read_meta()
        new = self._tails["steps"].poll()
        self._is_silent = new == 0
        if new:
            self._add_steps(new)
        return self.run.status == "running" and not (self.directory / "steps.parquet").exists()

    def close(self) -> None:
        """Close its files."""
        for tail in self._tails.values():
            tail.close()

    def _read_meta(self) -> None:
        """Read the facts of the run again if they may have changed: with each new loader, and when its
        process was killed."""
        with suppress(FileNotFoundError):
            state = (self.directory / RUN_JSON).stat()
            version = state.st_mtime_ns, state.st_size
            if version != self._version or self._is_silent:
                self.run, self._version = load(self.directory), version

    def _add_steps(self, new: int) -> None:
        """Add the record batches that came to the figures of all steps, and to those of the last seconds."""
        steps = self._tails["steps"]
        tables = steps.each_of_last(min(new, _MANY))
        figures = [_figures(table) for table in tables]
        if new > _MANY:  # a long run, at the begin
            self.all = _figures(steps.columns(("request_ns", "take_ns", "samples")))
        else:
            self.all = _sum((self.all, *figures))
        ready = whole_numbers(tables[-1]["ready_batches"], MISSING)
        known = ready[ready != MISSING]  # unprobed steps do not show it
        if len(known):
            self.ready = int(known[-1])
        self._recent.extend(figures)
        since_ns = self._recent[-1].last_ns - self.window_ns
        while self._recent[0].last_ns < since_ns:
            self._recent.popleft()
        self.window = _sum(self._recent)

    def analyse(self) -> Analysis | None:
        """Analyse the last seconds; None if they have no step."""
        steps = self._tails["steps"]
        last = steps.last(1)
        if len(last) == 0:
            return None
        now_ns = int(whole_numbers(last["take_ns"], MISSING).max())
        since_ns = now_ns - self.window_ns
        taken, chunks = steps.since("request_ns", since_ns)
        tables = {"steps": taken, **self._others(taken, chunks, since_ns)}
        for name, tail in self._tails.items():
            if name != "events":  # they are few, and asked for whole
                tail.forget_before(2 * chunks + 8)
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
            tail.poll()
            if name in _TIMED:
                whole = name == "events"  # they are few, and show when each pass began
                tables[name], _ = tail.since(_TIMED[name], 0 if whole else since_ns)
                continue
            table = tail.last(2 * chunks + 2)
            if name in ("batches", "stages", "spans") and len(table):
                table = table.filter(flags(np.isin(_keys(table), keys)))
            tables[name] = table
        return tables

    def workers(self) -> list[WorkerNow]:
        """Return the last that is known of each worker."""
        now = self._workers
        for row in self._news_of("lines", ("loader", "worker", "stage", "stack")):
            worker = row["worker"]
            if worker is not None and worker >= 0:
                line = parse_line((row["stack"] or "").rpartition("\n")[2])
                memory = now[worker].private_bytes if worker in now else None
                now[worker] = WorkerNow(row["loader"], worker, row["stage"] or "", line, memory)
        for row in self._news_of("counters", ("worker", "counter", "value")):
            if row["counter"] == counters.PRIVATE_BYTES and row["worker"] in now:
                now[row["worker"]] = now[row["worker"]]._replace(private_bytes=row["value"])
        return [now[worker] for worker in sorted(now)]

    def _news_of(self, name: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of a table that came since the last call."""
        tail = self._tails[name]
        tail.poll()
        new = tail.batches - self._counted_batches.get(name, 0)
        self._counted_batches[name] = tail.batches
        rows: list[dict[str, Any]] = tail.last(min(new, _NEWEST)).select(columns).to_pylist()
        return rows


def _figures(steps: pa.Table) -> StepTotals:
    """Return the figures of some steps, of which there is one at least."""
    request, take, samples = (
        whole_numbers(steps[name], MISSING) for name in ("request_ns", "take_ns", "samples")
    )
    counted = int(samples[samples != MISSING].sum())
    return StepTotals(len(take), counted, int((take - request).sum()), int(request[0]), int(take[-1]))


def _sum(parts: Iterable[StepTotals]) -> StepTotals:
    """Return the figures of parts that follow each other, without those that have no steps."""
    filled = [part for part in parts if part.steps]
    return StepTotals(
        sum(part.steps for part in filled),
        sum(part.samples for part in filled),
        sum(part.wait_ns for part in filled),
        filled[0].first_ns,
        filled[-1].last_ns,
    )


def _keys(table: pa.Table) -> Ints:
    """Return loader, epoch and seq of each row as one number."""
    loader, epoch, seq = (whole_numbers(table[name], 0) for name in ("loader", "epoch", "seq"))
    keys: Any = (loader.astype(np.int64) << 56) + (epoch.astype(np.int64) << 36) + seq
    return np.asarray(keys, np.int64)
