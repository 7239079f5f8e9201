"""Inside the workers: the timeline, the balance between workers, the epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED, ints
from pipeprof.report import timeline, units, words
from pipeprof.report.facts import Answer
from pipeprof.report.section import Row, Section, Table
from pipeprof.report.series import codes


def workers(answer: Answer) -> Section:
    """The section that holds the timeline, with its tables."""
    section = Section(
        "workers",
        "Inside the workers",
        "Each row is one process. Zoomed out, the height of a colour is its share of the time. Plus and "
        "minus zoom, as does the wheel with Ctrl or after a click; drag or arrow keys move; point at a batch "
        "to see its samples.",
    )
    if len(answer.timeline) == 0:
        section.missing = "No step was recorded, so there is no timeline."
        return section
    section.tables = [_balance(answer), _epochs(answer)]
    if len(section.tables[-1].rows) < 2:
        section.tables.pop()
    return section


def packed(answer: Answer) -> dict[str, Any] | None:
    """The timeline's data with its colours and the note on what was kept; None where no step was recorded."""
    walls = answer.attribution.stages.making if answer.attribution is not None else {}
    found = timeline.pack(answer.run, answer.timeline, {name: stage.wall_ns for name, stage in walls.items()})
    if found is None:
        return None
    parts = (
        ("wait", "waiting", "waiting for data"),
        ("copy", "h2d", "copying to the device"),
        ("compute", "accelerator", "computing"),
    )
    found["colours"] = {
        key: {"label": label, "colour": words.colour(name), "ink": words.ink(words.colour(name))}
        for key, name, label in parts
    }
    notes = []
    if found["kept"] < found["steps"]:
        notes.append(
            f"Single batches are kept for {units.count(found['kept'])} of {units.count(found['steps'])} "
            "steps: around the longest waits and an ordinary one. Elsewhere the colours are sums."
        )
    if found["spans"] is not None:
        notes.append(
            "Batches whose single spans were kept show them in order, the others as a stack of sums."
        )
    found["note"] = " ".join(notes)
    return found


def _balance(answer: Answer) -> Table:
    """How evenly the work is spread over the workers."""
    table = Table(
        "Balance between the workers",
        ["worker", "batches", "working", "mean batch"],
        [],
        "Balance between the workers",
        folded=True,
    )
    t = answer.timeline
    made = (t.finish_ns != NOT_OBSERVED) & (t.start_ns != NOT_OBSERVED) & ~t.warmup
    if not made.any():
        return table
    span = max(1, int(t.finish_ns[made].max() - t.start_ns[made].min()))
    for loader in np.unique(t.loader[made]).tolist():
        for worker in np.unique(t.worker[made & (t.loader == loader)]).tolist():
            own = made & (t.loader == loader) & (t.worker == worker)
            time = (t.finish_ns - t.start_ns)[own]
            name = f"worker {worker}" if worker >= 0 else "the main process"
            label = f"loader {loader}, {name}" if t.loader[made].any() else name
            cells = [units.count(own.sum()), units.percent(time.sum() / span), units.duration(time.mean())]
            table.rows.append(Row([label, *cells]))
    return table


def _epochs(answer: Answer) -> Table:
    """What each epoch was like; with several of them, the start-up shows."""
    table = Table("Epochs", ["epoch", "measured", "stall", "start-up", "first batch after"], [])
    if answer.attribution is None:
        return table
    started, t = _starts(answer), answer.timeline
    found = answer.attribution.epochs()
    several = len({loader for loader, _, _ in found}) > 1
    for loader, epoch, ledger in found[:200]:
        first = np.flatnonzero((t.loader == loader) & (t.epoch == epoch))
        begun = started.get((loader, epoch))
        wall = ledger.window.wall_ns
        cells = [
            f"loader {loader}, epoch {epoch}" if several else f"{epoch}",
            units.duration(wall),
            units.percent(ledger.stall_ns / wall if wall else None),
            units.duration(ledger.ledger_ns.get("startup", 0)),
            units.duration(int(t.take_ns[first[0]]) - begun if begun is not None and len(first) else None),
        ]
        table.rows.append(Row(cells))
    return table


def _starts(answer: Answer) -> dict[tuple[int, int], int]:
    events = answer.run.table("events")
    names, kind = codes(events["kind"])
    if "epoch_start" not in names:
        return {}
    mine = np.flatnonzero(kind == names.index("epoch_start"))
    loader, epoch, time = (ints(events[name])[mine].tolist() for name in ("loader", "epoch", "time_ns"))
    return {(one, two): at for one, two, at in zip(loader, epoch, time, strict=True)}
