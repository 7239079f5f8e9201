"""Claims 1 to 5 of the lecture: from the disk to the accelerator's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeprof.pipeline import measured_window
from pipeprof.report import charts, lesson_draw, units, where
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.lesson_words import Claim, claim
from pipeprof.report.section import Chart

Labelled = list[tuple[str, Rung]]
Names = Sequence[tuple[str, str]]

DEVICES: Final = (("hard disk", "1_hdd"), ("SSD", "2_ssd"), ("NVMe SSD", "2_nvme"))
MEMORY: Final = (
    ("SSD, for comparison", "2_ssd"),
    ("in RAM, as files", "3_ram"),
    ("in RAM, decoded", "3_decoded"),
    ("disk, all fits in memory", "3_cache_fits"),
    ("disk, 2/3 fits in memory", "3_cache_thrashes"),
)
TIERS: Final = (
    ("hdd", "hard disk", "1_hdd"),
    ("ssd", "SSD", "2_ssd"),
    ("nvme", "NVMe SSD", "2_nvme"),
    ("network", "network storage", None),
    ("ram", "in RAM", "3_ram"),
)
"""Tier, its label, and its run without workers, where the course has one."""
COPIES: Final = (
    ("ordinary memory", "5_copy_pageable"),
    ("pinned memory", "5_copy_pinned"),
    ("pinned, copied ahead", "5_copy_overlapped"),
    ("nothing to copy", "5_copy_none"),
)
LADDER: Final = (
    ("hard disk", "5_ladder-tier=hdd"),
    ("SSD", "5_ladder-tier=ssd"),
    ("NVMe SSD", "5_ladder-tier=nvme"),
    ("in RAM, as files", "5_ladder-tier=ram"),
    ("in RAM, ready, pinned", "5_ladder_pinned"),
)
NO_BETTER: Final = 0.05
"""A gain in speed below this share is none."""


def labelled(course: Course, names: Names, told: Claim) -> Labelled:
    """(label, run) of those that were run; what is missing is noted in `told`."""
    found = []
    for label, name in names:
        rung = course.get(name)
        if rung is not None:
            found.append((label, rung))
        else:
            told.missing.append(f"{label}: not observed ({course.why_missing(name)}).")
    return found


def unobserved(told: Claim, course: Course, name: str) -> Claim:
    """The claim without an answer, and why."""
    told.answer = f"Not observed: {course.why_missing(name)}."
    told.short = units.NOT_OBSERVED
    return told


def stall(rung: Rung | None) -> str:
    """The share waited, in words."""
    return units.percent(rung.stall if rung is not None else None)


def capital(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]


def disk(course: Course) -> Claim:
    """Claim 1: utilisation and stall of a loop on a hard disk, over time."""
    told = claim(1, course.directory)
    rung = course.get("1_hdd")
    if rung is None:
        return unobserved(told, course, "1_hdd")
    told.answer = (
        f"Fed from a hard disk (emulated), the accelerator (emulated) computed "
        f"{units.percent(rung.said.utilization)} of the time and waited for data {stall(rung)} of it: "
        f"{units.sample_rate(rung.rate)} (measured) where {units.sample_rate(rung.full_rate)} were possible."
    )
    told.short = f"waited {stall(rung)} of the time"
    window = measured_window(rung.answer.timeline)
    if window is not None:
        section = where.when(rung.answer, window)
        first = section.charts[0]
        how = f"Grey is work, red is waiting. {section.how}"
        told.charts = [
            Chart("claim1_when", first.spec, first.table, "What the accelerator did, over time", how)
        ]
        told.legend = section.legend
    known = {entry["label"] for entry in told.legend}
    told.legend += [entry for entry in lesson_draw.legend([rung]) if entry["label"] not in known]
    told.charts.append(lesson_draw.days("claim1_day", [("hard disk", rung)], "What it waited for, in all"))
    return told


def devices(course: Course) -> Claim:
    """Claim 2: the same loop on an SSD, and on NVMe."""
    told = claim(2, course.directory)
    return _compared(told, labelled(course, DEVICES, told), "claim2_days")


def memory(course: Course) -> Claim:
    """Claim 3: the set in RAM, as bytes and decoded, and one larger than memory."""
    told = claim(3, course.directory)
    return _compared(told, labelled(course, MEMORY, told), "claim3_days")


def _compared(told: Claim, runs: Labelled, chart: str) -> Claim:
    """The stall of each run in one sentence, and their days."""
    if not runs:
        told.answer, told.short = "Not observed: none of its runs was made.", units.NOT_OBSERVED
        return told
    each = ", ".join(f"{label} {stall(rung)}" for label, rung in runs)
    told.answer = f"The accelerator (emulated) waited for data (measured): {each} of the time."
    (first, before), (last, after) = runs[0], runs[-1] if len(runs) < 4 else runs[2]
    told.short = f"{first} {stall(before)}, {last} {stall(after)}"
    told.charts = [lesson_draw.days(chart, runs, "What the accelerator did with its time")]
    told.legend = lesson_draw.legend([rung for _, rung in runs])
    return told


def workers(course: Course) -> Claim:
    """Claim 4: workers by prefetch for each tier."""
    told = claim(4, course.directory)
    cells = [*course.of("4_workers"), *course.of("4_elsewhere")]
    if not cells:
        return unobserved(told, course, "4_workers")
    ends = []
    for tier, label, inline in TIERS:
        own = [rung for rung in cells if rung.cell.get("storage.tier") == tier]
        alone = course.get(inline) if inline else None
        if own:
            told.charts.append(_tier_map(tier, label, own, alone))
            ends.append(_where_it_ends(label, own, alone))
    told.answer, *told.more = ends
    best = min(cells, key=lambda rung: 1.0 if rung.stall is None else rung.stall)
    told.short = f"{stall(best)} with {best.cell.get('loader.workers')} workers, at best"
    told.side_by_side = True
    return told


def _tier_map(tier: str, label: str, cells: list[Rung], alone: Rung | None) -> Chart:
    places = {(one.cell["loader.workers"], one.cell["loader.prefetch"]): one for one in cells}
    depths = sorted({prefetch for _, prefetch in places})
    if alone is not None:  # nothing is prefetched without workers: the same at every depth
        places |= {(0, prefetch): alone for prefetch in depths}
    boxes = [
        lesson_draw.box(count, depth, one.stall, f"waited {stall(one)}, {units.sample_rate(one.rate)}")
        for (count, depth), one in sorted(places.items())
    ]
    rows = [
        [str(count), *(stall(places.get((count, depth))) for depth in depths)]
        for count in sorted({count for count, _ in places})
    ]
    heads = ["workers", *(f"prefetch {depth}" for depth in depths)]
    stalls = [one.stall for one in cells if one.stall is not None]
    says = (
        f"Between {units.percent(min(stalls, default=None))} and {units.percent(max(stalls, default=None))}."
    )
    spec = charts.heat_map(boxes, says, "workers", "prefetch")
    table = lesson_draw.table(f"Share of the time waiting, {label}", heads, rows)
    return Chart(f"claim4_{tier}", spec, table, capital(label))


def _where_it_ends(label: str, cells: list[Rung], alone: Rung | None) -> str:
    """The number of workers beyond which none helps, and what is in the way there."""
    best: dict[int, Rung] = {0: alone} if alone is not None else {}
    for cell in cells:
        count = cell.cell["loader.workers"]
        if count not in best or (cell.rate or 0) > (best[count].rate or 0):
            best[count] = cell
    counts = sorted(best)
    top = max(best[count].rate or 0 for count in counts)
    first = next(count for count in counts if (best[count].rate or 0) >= top * (1 - NO_BETTER))
    before, after = best[counts[0]], best[first]
    if first == counts[0]:
        return (
            f"{capital(label)}: waiting is {stall(after)} with {_many(first)}; more do not help, "
            f"{_because(after)}."
        )
    return (
        f"{capital(label)}: waiting falls from {stall(before)} with {_many(counts[0])} to {stall(after)} "
        f"with {_many(first)}; more do not help, {_because(after)}."
    )


def _many(count: int) -> str:
    return units.plural(count, "worker") if count else "no workers"


def _because(rung: Rung) -> str:
    """What is in the way, from the run's own verdict."""
    cause = rung.said.cause or ""
    if cause == "accelerator" or rung.said.band == "not":
        return "since hardly anything is left to wait for"
    if cause.startswith("storage"):
        network = rung.resolved.get("storage", {}).get("tier") == "network"
        return f"since the {'network' if network else 'disk'} never rests any more"
    if cause == "cpu-contention":
        cores = (rung.said.meta.get("machine") or {}).get("usable_cores")
        return f"since all of this machine's CPU cores ({units.count(cores)}) are taken"
    if cause in ("decode", "collate", "transfer") or cause.startswith("transform"):
        return "since the CPU's work on the images sets the pace"
    return f"and the verdict on that run is “{cause or units.NOT_OBSERVED}”"


def copies(course: Course) -> Claim:
    """Claim 5: the copy from host memory, and the whole ladder."""
    told = claim(5, course.directory)
    runs, ladder = labelled(course, COPIES, told), labelled(course, LADDER, told)
    if runs:
        each = ", ".join(f"{label} {units.percent(rung.said.utilization)}" for label, rung in runs)
        told.answer = f"The accelerator (emulated) computed, with each batch from: {each} of the time."
        (_, first), (_, last) = runs[0], runs[-1]
        told.short = (
            f"computing {units.percent(first.said.utilization)} to {units.percent(last.said.utilization)}"
        )
        told.charts = [
            lesson_draw.days("claim5_days", runs, "One loop, the batch copied in three ways, and not at all")
        ]
    if ladder:
        how = (
            "Samples that need no decoding, and an accelerator faster than any of these places: nothing "
            "but the way of the data shows."
        )
        title = "The whole ladder, from the disk to the accelerator"
        told.charts.append(lesson_draw.days("claim5_ladder", ladder, title, how))
        each = ", ".join(f"{label} {stall(rung)}" for label, rung in ladder)
        told.more.append(
            f"On the whole ladder (last chart), with big samples that need no decoding, it waited: {each}."
        )
    if not told.charts:
        return unobserved(told, course, "5_copy")
    told.answer = told.answer or told.more.pop()
    told.legend = lesson_draw.legend([rung for _, rung in (*runs, *ladder)])
    return told
