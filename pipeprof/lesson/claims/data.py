"""Claims 1 to 5 of the lecture: from the disk to the accelerator's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeprof import units
from pipeprof.lesson.claims import draw
from pipeprof.lesson.claims.claim import Claim, blank_claim
from pipeprof.lesson.results import LessonRun, Results
from pipeprof.report.page import charts, where
from pipeprof.report.page.section import Chart
from pipeprof.vocabulary import bands, causes

Labelled = list[tuple[str, LessonRun]]
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
"""Tier, its label, and its run without workers, if the course has one."""
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
"""Smaller speed-ups count as zero."""
ALIKE: Final = 0.01
"""Smaller differences of two runs' shares count as none if there are no intervals to tell."""


def labelled(results: Results, names: Names, claim: Claim) -> Labelled:
    """Return (label, run) of those that were run; note in `claim` what is missing."""
    runs = []
    for label, name in names:
        run = results.run(name)
        if run is not None:
            runs.append((label, run))
        else:
            claim.missing.append(f"{label}: not observed ({results.why_missing(name)}).")
    return runs


def unobserved(claim: Claim, results: Results, name: str) -> Claim:
    """Return the claim without an answer, and with the reason."""
    claim.answer = f"Not observed: {results.why_missing(name)}."
    claim.short = units.NOT_OBSERVED
    return claim


def stall(run: LessonRun | None) -> str:
    """Return the share waited, in words."""
    return units.percent(run.stall if run is not None else None)


def moves(runs: Labelled) -> str:
    """Return how the waiting moves from the first run to the last, in a sentence."""
    (first, before), (last, after) = runs[0], runs[-1]
    ends = f"{stall(before)} ({first}) {{}} {stall(after)} ({last})"
    if len(runs) == 1:
        return f"Waiting is {stall(before)} ({first})."
    if before.stall is None or after.stall is None or alike(before, after):
        return f"Waiting is {ends.format('and')}."
    return f"Waiting {'falls' if after.stall < before.stall else 'rises'} from {ends.format('to')}."


def alike(run: LessonRun, other: LessonRun) -> bool:
    """Return whether the waiting of two runs is the same within noise: their intervals overlap."""
    if run.stall is None or other.stall is None:
        return False
    first, second = run.said.stall_interval, other.said.stall_interval
    if first is None or second is None:
        return abs(run.stall - other.stall) < ALIKE
    return first[0] <= second[1] and second[0] <= first[1]


def capital(text: str) -> str:
    """Return the text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def disk(results: Results) -> Claim:
    """Build claim 1: utilisation and stall of a loop on a hard disk, over time."""
    claim = blank_claim(1, results.directory)
    run = results.run("1_hdd")
    if run is None:
        return unobserved(claim, results, "1_hdd")
    claim.answer = (
        f"Fed from a hard disk (emulated), the accelerator (emulated) computed "
        f"{units.percent(run.said.utilization)} of the time and waited for data {stall(run)} of it: "
        f"{units.sample_rate(run.rate)} (measured) where {units.sample_rate(run.full_rate)} were possible."
    )
    claim.short = f"It waited {stall(run)} of the time."
    attribution = run.analysis.attribution
    if attribution is not None:
        section = where.when(run.analysis, attribution)
        first = section.charts[0]
        how = f"Grey is work, red is waiting. {section.how}"
        claim.charts = [
            Chart("claim1_when", first.spec, first.table, "What the accelerator did, over time", how)
        ]
        claim.legend = section.legend
    known = {entry["label"] for entry in claim.legend}
    claim.legend += [entry for entry in draw.legend([run]) if entry["label"] not in known]
    claim.charts.append(draw.days("claim1_day", [("hard disk", run)], "What it waited for, in all"))
    return claim


def devices(results: Results) -> Claim:
    """Build claim 2: the same loop on an SSD, and on NVMe."""
    claim = blank_claim(2, results.directory)
    runs = labelled(results, DEVICES, claim)
    compared, known = _compared(claim, runs, "claim2_days"), dict(runs)
    ssd, nvme = (known.get(label) for label, _ in DEVICES[1:])
    if ssd is not None and nvme is not None and (said := _no_faster(ssd, nvme)):
        compared.more.append(said)
        compared.short = f"{moves(runs[:2])} NVMe adds nothing." if len(runs) == len(DEVICES) else said
    return compared


def _no_faster(ssd: LessonRun, nvme: LessonRun) -> str:
    """Return why the faster drive does not wait less; empty if it does."""
    if alike(ssd, nvme):
        return (
            "Between SSD and NVMe SSD there is no difference beyond noise: the drive is no longer what the "
            "accelerator waits for."
        )
    if ssd.stall is not None and nvme.stall is not None and nvme.stall > ssd.stall:
        return (
            "The NVMe SSD's model is the faster one: that its run waited more than the SSD's comes from this "
            "machine's cores, which decode the images, and not from the drive."
        )
    return ""


def memory(results: Results) -> Claim:
    """Build claim 3: the set in RAM, as bytes and decoded, and one larger than memory."""
    claim = blank_claim(3, results.directory)
    return _compared(claim, labelled(results, MEMORY, claim), "claim3_days")


def _compared(claim: Claim, runs: Labelled, chart: str) -> Claim:
    """Add the stall of each run in one sentence, and a chart of what the accelerator did."""
    if not runs:
        claim.answer, claim.short = "Not observed: none of its runs was made.", units.NOT_OBSERVED
        return claim
    each = ", ".join(f"{label} {stall(run)}" for label, run in runs)
    claim.answer = f"The accelerator (emulated) waited for data (measured): {each} of the time."
    claim.short = moves(runs if len(runs) < 4 else runs[:3])
    claim.charts = [draw.days(chart, runs, "What the accelerator did with its time")]
    claim.legend = draw.legend([run for _, run in runs])
    return claim


def workers(results: Results) -> Claim:
    """Build claim 4: workers by prefetch for each tier."""
    claim = blank_claim(4, results.directory)
    cells = [*results.of("4_workers"), *results.of("4_elsewhere")]
    if not cells:
        return unobserved(claim, results, "4_workers")
    ends = []
    for tier, label, inline in TIERS:
        own = [run for run in cells if run.tier == tier]
        alone = results.run(inline) if inline else None
        if own:
            claim.charts.append(_tier_map(tier, label, own, alone))
            ends.append(_where_it_ends(label, own, alone))
    claim.answer, *claim.more = ends
    best = min(cells, key=lambda run: 1.0 if run.stall is None else run.stall)
    claim.short = f"At best it waits {stall(best)}, with {_many(best.cell['loader.workers'])}."
    claim.side_by_side = True
    return claim


def _tier_map(tier: str, label: str, cells: list[LessonRun], alone: LessonRun | None) -> Chart:
    places = {(run.cell["loader.workers"], run.cell["loader.prefetch"]): run for run in cells}
    depths = sorted({prefetch for _, prefetch in places})
    if alone is not None:  # nothing is prefetched without workers: the same at every depth
        places |= {(0, prefetch): alone for prefetch in depths}
    boxes = [
        draw.box(count, depth, run.stall, f"waited {stall(run)}, {units.sample_rate(run.rate)}")
        for (count, depth), run in sorted(places.items())
    ]
    rows = [
        [str(count), *(stall(places.get((count, depth))) for depth in depths)]
        for count in sorted({count for count, _ in places})
    ]
    heads = ["workers", *(f"prefetch {depth}" for depth in depths)]
    stalls = [run.stall for run in cells if run.stall is not None]
    says = (
        f"Between {units.percent(min(stalls, default=None))} and {units.percent(max(stalls, default=None))}."
    )
    spec = charts.heat_map(boxes, says, "workers", "prefetch")
    table = draw.table(f"Share of the time waiting, {label}", heads, rows)
    return Chart(f"claim4_{tier}", spec, table, capital(label))


def _where_it_ends(label: str, cells: list[LessonRun], alone: LessonRun | None) -> str:
    """Say beyond how many workers more do not help, and what limits them there."""
    best: dict[int, LessonRun] = {0: alone} if alone is not None else {}
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


def _because(run: LessonRun) -> str:
    """Say what is in the way, from the run's own verdict."""
    cause = run.said.cause or causes.INCONCLUSIVE.word
    record = causes.record_of(cause)
    if record is causes.ACCELERATOR or run.said.band == bands.NOT.word:
        return "since hardly anything is left to wait for"
    if record in causes.STORAGE:
        network = run.settings.storage.tier == "network"
        return f"since the {'network' if network else 'disk'} never rests any more"
    if record is causes.CPU_CONTENTION:
        cores = run.said.meta.machine.usable_cores
        return f"since all of this machine's CPU cores ({units.count(cores)}) are taken"
    if record in (*causes.WORK, causes.TRANSFER):
        return "since the CPU's work on the images sets the pace"
    return f"and the verdict on that run is “{cause}”"


def _copying(claim: Claim, runs: dict[str, LessonRun]) -> None:
    """Say what copying costs, and that it costs nothing if it is hidden."""
    plain, ahead, none = (runs.get(COPIES[i][0]) for i in (0, 2, 3))
    free = None if none is None else none.said.utilization
    if plain is None or free is None or plain.said.utilization is None:
        claim.short = f"Copies were compared in {units.plural(len(runs), 'way')}."
        return
    cost = max(0.0, free - plain.said.utilization)
    claim.short = f"Copying from ordinary memory costs {units.percent(cost)} of the time"
    if ahead is not None and ahead.said.utilization is not None:
        if free - ahead.said.utilization < ALIKE:
            claim.short += ", copied ahead nothing"
            claim.more.append(
                "Copied ahead, a batch costs nothing that this could measure: the accelerator computes as "
                f"much as with nothing to copy, within {units.percent(ALIKE)} of the time."
            )
        else:
            claim.short += f", copied ahead {units.percent(free - ahead.said.utilization)}"
    claim.short += "."


def copies(results: Results) -> Claim:
    """Build claim 5: the copy from host memory, and the whole ladder."""
    claim = blank_claim(5, results.directory)
    runs, ladder = labelled(results, COPIES, claim), labelled(results, LADDER, claim)
    if runs:
        each = ", ".join(f"{label} {units.percent(run.said.utilization)}" for label, run in runs)
        claim.answer = f"The accelerator (emulated) computed, with each batch from: {each} of the time."
        _copying(claim, dict(runs))
        claim.charts = [
            draw.days("claim5_days", runs, "One loop, the batch copied in three ways, and not at all")
        ]
    if ladder:
        how = (
            "Samples that need no decoding, and an accelerator faster than any of these places: nothing "
            "but the way of the data shows."
        )
        title = "The whole ladder, from the disk to the accelerator"
        claim.charts.append(draw.days("claim5_ladder", ladder, title, how))
        each = ", ".join(f"{label} {stall(run)}" for label, run in ladder)
        claim.more.append(
            f"On the whole ladder (last chart), with big samples that need no decoding, it waited: {each}."
        )
    if not claim.charts:
        return unobserved(claim, results, "5_copy")
    claim.answer = claim.answer or claim.more.pop()
    claim.legend = draw.legend([run for _, run in (*runs, *ladder)])
    return claim
