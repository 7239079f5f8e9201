"""Records of why a run's batches were slow: sums that the mechanisms are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from pipeprof.analyse.figures import Facts
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.ledger.lock import lock_waits
from pipeprof.analyse.ledger.making import Stages, Values
from pipeprof.analyse.why.lines import MAIN, WAIT, HotLine, Lines, read_lines, stage_of
from pipeprof.analyse.why.totals import CounterTotals, read_counts
from pipeprof.analyse.why.transfer import receive_starts
from pipeprof.passes import Window
from pipeprof.record.names.counters import CounterName
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, OF_ITS_LENGTH, Floats, Ints, Timeline, read_ints, stands_for
from pipeprof.vocabulary import owners


@dataclass(frozen=True)
class Observed:
    """A run, asked by the mechanisms. Sums are over all batches of the run, warm-up included.

    Batches that were made unprobed are left out, as counters and lines leave them out too. Use the `whole` of
    a column, in which other batches stand for them, to compare with what a whole process or the machine did.
    """

    run: Run
    timeline: Timeline
    made: Stages
    """Times of the stages of each step's batch."""
    facts: Facts
    owner: str
    """The owner that the verdict blames, such as `collate` or `stage:getitem`."""
    ledger_ns: Mapping[str, int]
    """Time of the measured window by owner."""
    window: Window
    """The measured window."""

    @classmethod
    def of(cls, run: Run, attribution: Attribution, facts: Facts, owner: str) -> Observed:
        """Ask about the owner that an attribution blames."""
        ledger = attribution.whole
        timeline, made = attribution.timeline, attribution.stages
        return cls(run, timeline, made, facts, owner, ledger.ledger_ns, ledger.window)

    @property
    def wall_ns(self) -> int:
        """Length of the measured window."""
        return self.window.wall_ns

    @property
    def owner_ns(self) -> int:
        """Time that the ledger charges the blamed owner."""
        return self.ledger_ns.get(self.owner, 0)

    @cached_property
    def lines(self) -> Lines:
        """Read the sampled stacks."""
        return read_lines(self.run)

    @cached_property
    def hot(self) -> tuple[HotLine, ...]:
        """Return the lines in which the blamed owner's time was spent.

        For owners that are not stages, such as a missing core: of the stage that took the most time. The same
        holds for the storage if no read in Python was sampled: mapped files are read when touched.
        """
        lines = () if self.owner in _NO_STAGE else self.lines.hot(self.owner)
        if lines or self.owner not in (*_NO_STAGE, owners.STORAGE.name):
            return lines
        others = {owners.of_stage(stage): ns for stage, ns in self.stages_ns.items() if stage != owners.READ}
        return self.lines.hot(max(others, key=others.__getitem__)) if others else ()

    @cached_property
    def counts(self) -> CounterTotals:
        """Read the processes' counters."""
        return read_counts(self.run)

    @cached_property
    def _made(self) -> Mapping[str, Ints]:
        columns = read_ints(self.run, "batches", _COLUMNS)
        columns["row"] = np.arange(len(columns["start_ns"]))
        made = (columns["start_ns"] != NOT_OBSERVED) & (columns["finish_ns"] != NOT_OBSERVED)
        return {name: values[made] for name, values in columns.items()}

    @cached_property
    def _batches(self) -> Mapping[str, Ints]:
        probed = self._made["unprobed"] != 1  # nothing was counted in the others
        return {name: values[probed] for name, values in self._made.items()}

    def total(self, column: str) -> int | None:
        """Return the sum of a column of `batches`; None if no batch has it."""
        values = self._batches[column]
        seen = values[values != NOT_OBSERVED]
        return int(seen.sum()) if len(seen) else None

    def whole(self, column: str) -> int | None:
        """Return the same with each batch counted once for every batch that it stands for: an estimate for
        all batches. Times of making a batch are in proportion to the length of these."""
        values, (counted, lengths) = self._batches[column], self._stand_for
        times = (lengths if column in OF_ITS_LENGTH else counted)[self._batches["row"]]
        seen = values != NOT_OBSERVED
        return round(float((values * times)[seen].sum())) if seen.any() else None

    @cached_property
    def _stand_for(self) -> tuple[Ints, Floats]:
        return stands_for(self.timeline, int(self._made["row"].max(initial=-1)) + 1)

    @cached_property
    def making_ns(self) -> int:
        """Return the time that all batches together took to make."""
        return int((self._batches["finish_ns"] - self._batches["start_ns"]).sum())

    @cached_property
    def probing_factor(self) -> float:
        """Return the time of a sample in an unprobed batch over that in a probed one, by their medians.

        1 if probing costs nothing that is seen, or too few batches were made either way.
        """
        made = {name: values[self._made["samples"] > 0] for name, values in self._made.items()}
        each = (made["finish_ns"] - made["start_ns"]) / made["samples"]
        unprobed = made["unprobed"] == 1
        if min(unprobed.sum(), (~unprobed).sum()) < FEWEST_COMPARED:
            return 1.0
        return min(1.0, float(np.median(each[unprobed]) / np.median(each[~unprobed])))

    @cached_property
    def run_ns(self) -> int:
        """Return the nanoseconds from the start of the first batch to the end of the last one."""
        if not self.batches:
            return 0
        return int(self._made["finish_ns"].max() - self._made["start_ns"].min())

    @property
    def samples(self) -> int:
        """Return the samples of the probed batches."""
        return self.total("samples") or 0

    @property
    def batches(self) -> int:
        """Return the probed batches."""
        return len(self._batches["start_ns"])

    @property
    def all_batches(self) -> int:
        """Return the batches made."""
        return len(self._made["start_ns"])

    @cached_property
    def stages_ns(self) -> Mapping[str, float]:
        """Return the time of each stage in the making of batches."""
        unprobed = self.timeline.unprobed
        seen = slice(None) if unprobed is None else ~unprobed
        return {
            name: float(stage.wall_ns[seen].sum(dtype=np.float64)) for name, stage in self.made.making.items()
        }

    @property
    def owner_making_ns(self) -> int:
        """Return the time of the blamed owner in the making of batches, over all workers."""
        if self.owner in (owners.CPU_CONTENTION.name, owners.BLOCKED.name):
            return self.making_ns
        return int(self.stages_ns.get(stage_of(self.owner), 0))

    @cached_property
    def body_ns(self) -> float:
        """Return the time of the measured steps in the loop's body, without what the user marked in it."""
        return float(self._in_loop_ns(MAIN)[self.timeline.measured].sum())

    def times_seen(self, stage: str) -> float:
        """Return how often what was sampled of the training thread in a stage stands for itself.

        Of unprobed steps its waiting and its own code were not. What it did in making batches was as much as
        the batches' own columns are of; another thread is sampled all along.
        """
        t = self.timeline
        if t.loop_unprobed is None or stage not in (MAIN, WAIT):
            return 1.0
        lasted_ns = self._in_loop_ns(stage)
        seen_ns = float(lasted_ns[t.measured & ~t.loop_unprobed].sum())
        return float(lasted_ns[t.measured].sum()) / seen_ns if seen_ns else 1.0

    def _in_loop_ns(self, stage: str) -> Values:
        """Return the time of each step in the loop's own code, or waiting for its batch, in ns."""
        t = self.timeline
        if stage == MAIN:
            return self.made.unmarked_ns(t)
        return np.where(t.worker < 0, t.loader_code_ns, t.wait_ns).astype(np.float64)

    def per_sample(self, counter: CounterName) -> float:
        """Return how often the workers counted something for each sample that they made."""
        counted = self.counts.of_workers[counter] + self.counts.of_main[counter]
        return counted / self.samples if self.samples else 0.0

    def cost_by_epoch(self) -> dict[int, float]:
        """Return the time that a sample of the quickest batch took to make, by epoch, in nanoseconds.

        Without waiting for a core. On crowded cores the means of epochs alike lie up to 40 % apart, their
        quickest batches 15 %.
        """
        made, samples = self._batches, np.maximum(self._batches["samples"], 0)
        filled = samples > 0
        waited = np.where(made["runq_ns"] == NOT_OBSERVED, 0, made["runq_ns"])
        each = (made["finish_ns"] - made["start_ns"] - waited)[filled] / samples[filled]
        epochs = made["epoch"][filled]
        return {int(epoch): float(each[epochs == epoch].min()) for epoch in np.unique(epochs)}

    def lock_waits_ns(self) -> tuple[Ints, Ints]:
        """Return, by step, how long the batch waited until its worker let go: see `lock.lock_waits`."""
        return lock_waits(self.timeline, receive_starts(self.run))


FEWEST_COMPARED: Final = 20
"""Batches of either kind below which probed ones and unprobed ones are not compared."""
_NO_STAGE: Final = (owners.CPU_CONTENTION.name, owners.BLOCKED.name)
"""Owners that every stage may have a part in."""
_COLUMNS: Final = (
    "start_ns",
    "finish_ns",
    "samples",
    "gc_ns",
    "cpu_ns",
    "helper_cpu_ns",
    "runq_ns",
    "bytes",
    "device_bytes",
    "epoch",
    "worker",
    "unprobed",
)
