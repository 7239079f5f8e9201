"""Inside the workers: the timeline, the balance between workers, the epochs."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.over_time import longest_waits
from pipeprof.analyse.resources.operators import operator_times
from pipeprof.analyse.resources.shards import shard_times
from pipeprof.report.page import timeline
from pipeprof.report.page.section import Row, Section, Table
from pipeprof.report.wording import reading, words
from pipeprof.timeline import NOT_OBSERVED
from pipeprof.vocabulary import owners

MOST_SHARDS: Final = 32
"""Number of shards that the page lists, the slowest first."""


def workers(analysis: Analysis) -> Section:
    """Return the section that holds the timeline, with its tables."""
    section = Section(
        "workers",
        "Inside the workers",
        reading.WORKERS,
    )
    if len(analysis.timeline) and (analysis.timeline.worker < 0).all():
        section.title, section.how = "Inside the loop", reading.WORKERS_INLINE
    if len(analysis.timeline) == 0:
        section.missing = "No step was recorded, so there is no timeline."
        return section
    section.facts = [("Longest wait", sentence) for sentence in (_longest_wait(analysis),) if sentence]
    section.tables = [_balance(analysis)]
    section.tables += [table for table in (_epochs(analysis), _shards(analysis)) if len(table.rows) > 1]
    section.tables += [table for table in (_operators(analysis),) if table.rows]
    return section


def _longest_wait(analysis: Analysis) -> str:
    """Return in a sentence what made the longest of the measured waits; empty if no step waited."""
    t, attribution = analysis.timeline, analysis.attribution
    if attribution is None or not len(longest := longest_waits(t, attribution.wait_ns)):
        return ""
    i = int(longest[0])
    waited_ns = int(attribution.wait_ns[i])
    said = f"Step {units.count(t.step[i])} waited {units.duration(waited_ns)}"
    if NOT_OBSERVED in (t.start_ns[i], t.finish_ns[i]):
        return f"{said}; the making of its batch was not observed."
    maker = f"worker {t.worker[i]}" if t.worker[i] >= 0 else "the loop itself"
    if t.finish_ns[i] <= t.request_ns[i]:
        before = units.duration(t.request_ns[i] - t.finish_ns[i])
        return f"{said}: {maker} had finished its batch {before} before, and it was on its way."
    took = units.duration(t.finish_ns[i] - t.start_ns[i])
    unbegun_ns = min(int(t.start_ns[i] - t.request_ns[i]), waited_ns)
    if unbegun_ns > waited_ns / 2:
        why = "as its epoch began, " if t.epoch_first[i] and t.worker[i] >= 0 else ""
        begun = f"for {units.duration(unbegun_ns)} of that, {why}{maker} had not begun its batch"
        return f"{said}: {begun}, and then made it in {took}."
    parts = {
        name: float(np.nan_to_num(stage.wall_ns[i]))
        for name, stage in attribution.stages.making.items()
        if name != "transform"
    }
    name = max(parts, key=parts.__getitem__, default="")
    most = f", {units.duration(parts[name])} of it in {words.drawn_stage(name).label}" if name else ""
    return f"{said} because {maker} made its batch in {took}{most}."


def packed(analysis: Analysis) -> dict[str, Any] | None:
    """Return the timeline's data, its colours and the note on what was kept; None without recorded steps."""
    walls = analysis.attribution.stages.making if analysis.attribution is not None else {}
    pack = timeline.pack(
        analysis.run,
        analysis.timeline,
        analysis.attribution,
        {name: stage.wall_ns for name, stage in walls.items()},
    )
    if pack is None:
        return None
    parts = (
        ("masked", words.MASKED),
        ("wait", words.WAITING),
        ("copy", owners.H2D.name),
        ("compute", owners.ACCELERATOR.name),
    )
    drawn = [(key, words.drawn(name)) for key, name in parts]
    pack["colours"] = {
        key: {"label": part.label, "colour": part.colour, "ink": words.ink(part.colour)}
        for key, part in drawn
    }
    notes = []
    if pack["kept"] < pack["steps"]:
        notes.append(
            f"Single batches are kept for {units.count(pack['kept'])} of {units.count(pack['steps'])} "
            "steps: around the longest waits and an ordinary one. Elsewhere the colours are sums."
        )
    if pack["spans"] is not None:
        notes.append("A few batches are recorded in full; the rest show totals per stage.")
    pack["note"] = " ".join(notes)
    return pack


def _balance(analysis: Analysis) -> Table:
    """Return how evenly the work is spread over the workers."""
    table = Table(
        "Balance between the workers",
        ["worker", "batches", "working", "mean batch"],
        [],
        "Balance between the workers",
        folded=True,
    )
    shares = analysis.counts.workers if analysis.counts is not None else ()
    several = len({worker_share.loader for worker_share in shares}) > 1
    for worker_share in shares:
        name = f"worker {worker_share.worker}" if worker_share.worker >= 0 else "the main process"
        label = f"{analysis.loader_name(worker_share.loader)}, {name}" if several else name
        cells = [
            units.count(worker_share.batches),
            units.percent(worker_share.busy_share),
            units.duration(worker_share.mean_ns),
        ]
        table.rows.append(Row([label, *cells]))
    return table


def _shards(analysis: Analysis) -> Table:
    """Return how long the batches of each shard took to make, slowest first; no row if none is known."""
    table = Table(
        "Shards", ["shard", "batches", "half take less than"], [], how=reading.SHARDS_OF_RUN, folded=True
    )
    for row in shard_times(analysis.run, analysis.timeline)[:MOST_SHARDS]:
        table.rows.append(Row([row.shard, units.count(row.batches), units.duration(row.median_ns)]))
    return table


def _operators(analysis: Analysis) -> Table:
    """Return the operators of sources with statistics of their own; no row if none are known."""
    heads = ["operator", "of their time", "time of its tasks", "CPU time", "tasks", "rows"]
    table = Table("Operators of the source", heads, [], how=reading.OPERATORS)
    for row in operator_times(analysis.run.meta):
        cells = [
            units.percent(row.share),
            units.duration(row.wall_ns),
            units.duration(row.cpu_ns),
            units.count(row.tasks),
            units.count(row.rows),
        ]
        table.rows.append(Row([row.name, *cells]))
    return table


def _epochs(analysis: Analysis) -> Table:
    """Return a row for each epoch; with several of them, the start-up shows."""
    table = Table("Epochs", ["epoch", "measured", "stall", "start-up", "first batch after"], [])
    if analysis.attribution is None or analysis.counts is None:
        return table
    epochs = analysis.attribution.epochs()
    several = len({loop_pass.loader for loop_pass, _ in epochs}) > 1
    for loop_pass, ledger in epochs[:200]:
        wall, key = ledger.window.wall_ns, (loop_pass.loader, loop_pass.epoch)
        cells = [
            f"{analysis.loader_name(loop_pass.loader)}, epoch {loop_pass.epoch}"
            if several
            else f"{loop_pass.epoch}",
            units.duration(wall),
            units.percent(ledger.stall_share),
            units.duration(analysis.counts.startup_ns.get(key, 0)),
            units.duration(analysis.counts.first_batch_ns[key]),
        ]
        table.rows.append(Row(cells))
    return table
