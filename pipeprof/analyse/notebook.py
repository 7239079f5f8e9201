"""A run as a notebook shows it: its verdict as a short piece of HTML, and its slowest samples."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

import numpy as np

from pipeprof import units
from pipeprof.analyse.verdict import Verdict
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, ints
from pipeprof.vocabulary import causes, fixes, owners

MOST_OWNERS = 6


class SlowSample(NamedTuple):
    """The slowest sample of a batch."""

    sample: int
    """Index in the data set."""
    took_ns: int
    worker: int
    """Worker that made it; -1 for the main process."""
    batch: int
    """Position of the batch's row in the table `batches`."""
    file: str | None = None
    """Path of its file, if the data set keeps a list of them and it was kept."""


def slowest_samples(run: Run, number: int) -> list[SlowSample]:
    """Return up to `number` slowest samples of the batches that were probed, the slowest first.

    It includes only those whose index is known: `own_cost` of a verdict says how many batches were probed in
    a long run.
    """
    table = run.table("batches")
    index, took, worker = (ints(table[name]) for name in ("slowest_index", "slowest_ns", "worker"))
    loader = ints(table["loader"]) if "loader" in table.column_names else np.zeros(len(index), np.int64)
    files = {(each.loader, each.sample): each.path for each in run.meta.reading.slowest}
    known = np.flatnonzero((index != NOT_OBSERVED) & (took != NOT_OBSERVED))
    order = known[np.argsort(-took[known], kind="stable")][:number]
    return [
        SlowSample(int(index[i]), int(took[i]), int(worker[i]), int(i), files.get((loader[i], index[i])))
        for i in order
    ]


def as_html(verdict: Verdict) -> str:
    """Return the sentence, the figures next to it, and where the time went."""
    measured = verdict.measured
    stall = f"waiting for data {units.percent(verdict.stall_share)}"
    stall += " (no verdict)" if verdict.cause == causes.INCONCLUSIVE.word else ""
    figures = f"{stall} · {units.sample_rate(measured.throughput_samples_per_s)}"
    known = fixes.BY_WORD.get(verdict.fix)
    fix = "" if known is None or known is fixes.NONE else f"{known.do}."
    emulated = f"Emulated: {', '.join(measured.emulated)}." if measured.emulated else ""
    said = [verdict.statement.evidence, verdict.statement.line, fix, verdict.warning, emulated]
    texts = "".join(f"<p>{escape(text)}</p>" for text in said if text)
    return f"<p><b>{escape(verdict.statement.headline)}</b><br>{escape(figures)}</p>{texts}{_owners(verdict)}"


def _owners(verdict: Verdict) -> str:
    ledger = verdict.measured.ledger_ns or {}
    whole = sum(ledger.values())
    shown = sorted(((ns, name) for name, ns in ledger.items() if ns), reverse=True)[:MOST_OWNERS]
    rows = (
        f"<tr><td>{escape(owners.label_of(name))}</td><td>{units.percent(ns / whole)}</td></tr>"
        for ns, name in shown
    )
    return f"<table>{''.join(rows)}</table>" if whole else ""
