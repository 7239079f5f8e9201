"""Claims 1 to 5 of the lecture: from the disk to the accelerator's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeprof.pipeline import measured_window
from pipeprof.report import charts, lesson_draw, units, where
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.section import Chart, Table

EMULATED = "emulated"
MEASURED = "measured"
SIMULATED = "simulated"

Labelled = list[tuple[str, Rung]]


@dataclass
class Claim:
    """One claim of the page."""

    number: int
    title: str
    lecture: str
    """What the lecture says."""
    answer: str
    """What was measured, in one sentence with numbers."""
    kinds: list[tuple[str, str]]
    """(`emulated`, `measured` or `simulated`; of what that is true)."""
    why: str
    tries: list[tuple[str, str]]
    """(what to change, the command)."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    legend: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def labelled(course: Course, names: Sequence[tuple[str, str]], claim: Claim | None = None) -> Labelled:
    """(label, run) of those that were run; what is missing is noted in `claim`."""
    found = []
    for label, name in names:
        rung = course.get(name)
        if rung is not None:
            found.append((label, rung))
        elif claim is not None:
            claim.missing.append(f"{label}: not observed, {course.why_missing(name)}.")
    return found


def stall(rung: Rung | None) -> str:
    """The share waited, in words."""
    return units.percent(rung.stall) if rung is not None else units.NOT_OBSERVED


def disk(course: Course) -> Claim:
    """Claim 1: utilisation and stall of a loop on a hard disk, over time."""
    rung = course.get("1_hdd")
    claim = Claim(
        1,
        "The disk is the bottleneck",
        "The model and its weights sit in the GPU's memory, the training data on a disk. Forward and backward "
        "passes are fast: if you are not careful, training waits for the disk to read the data.",
        "",
        [(EMULATED, "hard disk, accelerator"), (MEASURED, "reading, decoding and the waiting they cause")],
        "Each image of a shuffled data set lies somewhere else on the platter. To fetch one, the disk moves its "
        "arm and waits until the platter has turned to the right place: about 13 thousandths of a second in "
        "which not one byte is read. Sixteen images make a batch, so a batch costs a fifth of a second before "
        "anything is decoded, and the accelerator, which needs 64 ms for a batch, has nothing to do meanwhile.",
        [
            (
                "A slower disk, as in a laptop",
                "pipeprof run scenarios/lesson/1_hdd.yaml --set storage.device=hdd-5400",
            ),
            (
                "A slower accelerator, which has more patience",
                "pipeprof run scenarios/lesson/1_hdd.yaml --set accelerator.step_ms=400",
            ),
            (
                "Your own images on your own disk",
                "pipeprof run scenarios/lesson/1_hdd.yaml --set data.format=image_folder --set data.path=DIR --set storage.path=DIR",
            ),
        ],
    )
    if rung is None:
        claim.answer = f"Not observed: {course.why_missing('1_hdd')}."
        return claim
    claim.answer = (
        f"Reading from a hard disk (emulated), the accelerator (emulated) computed "
        f"{units.percent(rung.said.utilization)} of the time and waited for data {stall(rung)} (measured): "
        f"{units.sample_rate(rung.rate)} where {units.sample_rate(rung.full_rate)} would have been possible."
    )
    window = measured_window(rung.answer.timeline)
    if window is not None:
        section = where.when(rung.answer, window)
        first = section.charts[0]
        claim.charts = [
            Chart("claim1_when", first.spec, first.table, "What the accelerator did, over time", first.how)
        ]
        claim.legend = section.legend
    claim.charts.append(lesson_draw.days("claim1_day", [("hard disk", rung)], "What it waited for, in all"))
    return claim


DEVICES = (("hard disk", "1_hdd"), ("SSD", "2_ssd"), ("NVMe SSD", "2_nvme"))


def devices(course: Course) -> Claim:
    """Claim 2: the same loop on an SSD, and on NVMe."""
    claim = Claim(
        2,
        "An SSD instead of a hard disk",
        "Use an SSD instead of a hard disk. (NVMe, a faster kind of SSD, came after the lecture.)",
        "",
        [
            (EMULATED, "hard disk, SSD, NVMe SSD, accelerator"),
            (MEASURED, "reading, decoding and the waiting"),
        ],
        "An SSD has no arm to move: to find an image takes it 0.08 ms in place of 13 ms. Once that wait is gone, "
        "the next one shows: the loop itself decodes the JPEGs, one after the other, on one CPU core. An NVMe "
        "SSD is several times as fast again and changes little here, because the disk is no longer what the "
        "accelerator waits for. A faster part helps only where it is the slowest one.",
        [
            (
                "An accelerator four times as fast: does NVMe pay now?",
                "pipeprof run scenarios/lesson/2_nvme.yaml --set accelerator.step_ms=16",
            ),
            (
                "An SSD at half the speed",
                "pipeprof run scenarios/lesson/2_ssd.yaml --set storage.figures.bandwidth_bytes_per_s=265e6",
            ),
        ],
    )
    runs = labelled(course, DEVICES, claim)
    return _compared(claim, runs, "claim2_days")


def _compared(claim: Claim, runs: Labelled, chart: str) -> Claim:
    """The stall of each run in one sentence, and their days."""
    if not runs:
        claim.answer = "Not observed: none of its runs was made."
        return claim
    told = ", ".join(f"{label} {stall(rung)}" for label, rung in runs)
    emulated = " (emulated)" if any(kind == EMULATED for kind, _ in claim.kinds) else ""
    claim.answer = f"Share of the time that the accelerator{emulated} waited for data (measured): {told}."
    claim.charts = [lesson_draw.days(chart, runs, "What the accelerator did with its time")]
    claim.legend = lesson_draw.legend([rung for _, rung in runs])
    return claim


MEMORY = (
    ("SSD, for comparison", "2_ssd"),
    ("in memory, as files", "3_ram"),
    ("in memory, decoded", "3_decoded"),
    ("disk, all of it cached", "3_cache_fits"),
    ("disk, 2/3 fits in memory", "3_cache_thrashes"),
)


def memory(course: Course) -> Claim:
    """Claim 3: the set in RAM, as bytes and decoded, and one larger than memory."""
    claim = Claim(
        3,
        "The whole data set in RAM",
        "If the data set is small enough, read all of it into RAM before training.",
        "",
        [
            (EMULATED, "hard disk, SSD, accelerator, the limit on the page cache"),
            (MEASURED, "memory, decoding and the waiting"),
        ],
        "In memory there is no disk left to wait for, but an image held as a JPEG file must still be decoded "
        "each time. Decoded beforehand it needs several times the memory and only has to be cut and flipped. "
        "The operating system does something similar by itself: what was read stays in free memory (the page "
        "cache), so from the second pass on a small set comes from there. But as soon as the set is a little "
        "larger than that memory, and is read in the same order each pass, every image has just been thrown out "
        "when its turn comes again: the memory is full and serves nothing. That is called thrashing.",
        [
            (
                "Where does it tip over? The set is 21 MB",
                "pipeprof run scenarios/lesson/3_cache_thrashes.yaml --set storage.cache_bytes=20000000",
            ),
            (
                "In random order part of it is found",
                "pipeprof run scenarios/lesson/3_cache_thrashes.yaml --set loader.shuffle=true",
            ),
        ],
    )
    return _compared(claim, labelled(course, MEMORY, claim), "claim3_days")


TIERS = (("hdd", "hard disk", "1_hdd"), ("ssd", "SSD", "2_ssd"), ("ram", "in memory", "3_ram"))
NO_BETTER = 0.05
"""A gain in speed below this share is none."""


def workers(course: Course) -> Claim:
    """Claim 4: workers by prefetch for each tier."""
    cells = course.of("4_workers")
    claim = Claim(
        4,
        "CPU threads that prefetch",
        "Use several CPU threads to prefetch data, so that reading and decoding go on while the GPU computes.",
        "",
        [(EMULATED, "hard disk, SSD, accelerator"), (MEASURED, "workers, decoding and the waiting")],
        "PyTorch uses processes, called workers: each makes whole batches ahead of time and holds a few ready "
        "(prefetch). Workers decode side by side, so they help as long as decoding is what takes time and a CPU "
        "core is free for each. They cannot make one disk arm serve two reads at once: on the hard disk the "
        "second worker mostly waits for the first. A deeper prefetch makes nothing faster; it bridges batches "
        "that take longer than others.",
        [
            (
                "Sixteen workers on the disk",
                "pipeprof run scenarios/lesson/1_hdd.yaml --set loader.workers=16",
            ),
            ("All cells of one tier, with your own counts", "pipeprof run scenarios/tiers_by_workers.yaml"),
            ("What would be enough, predicted from a run", f"pipeprof predict {course.directory / '1_hdd'}"),
        ],
    )
    if not cells:
        claim.answer = f"Not observed: {course.why_missing('4_workers')}."
        return claim
    ends = []
    for tier, label, alone in TIERS:
        own = [rung for rung in cells if rung.cell.get("storage.tier") == tier]
        if own:
            claim.charts.append(_tier_map(tier, label, own, course.get(alone)))
            ends.append(_where_it_ends(label, own, course.get(alone)))
    claim.answer = " ".join(ends)
    return claim


def _tier_map(tier: str, label: str, cells: list[Rung], alone: Rung | None) -> Chart:
    places = {(c.cell["loader.workers"], c.cell["loader.prefetch"]): c for c in cells}
    depths = sorted({prefetch for _, prefetch in places})
    if alone is not None:
        places |= {(0, prefetch): alone for prefetch in depths}
    boxes = [
        lesson_draw.box(w, p, c.stall, f"waited {stall(c)}, {units.sample_rate(c.rate)}")
        for (w, p), c in sorted(places.items())
    ]
    says = f"Between {units.percent(min(c.stall or 0 for c in cells))} and {units.percent(max(c.stall or 0 for c in cells))}."
    counts = sorted({w for w, _ in places})
    rows = [
        [
            str(w),
            *(stall(places.get((w, p))) for p in depths),
            *(
                units.sample_rate(places[w, p].rate) if (w, p) in places else units.NOT_OBSERVED
                for p in depths[-1:]
            ),
        ]
        for w in counts
    ]
    table = lesson_draw.table(
        f"Time waiting, {label}",
        ["workers", *(f"prefetch {p}" for p in depths), f"speed at prefetch {depths[-1]}"],
        rows,
    )
    spec = charts.heat_map(boxes, says, "workers", "batches that each prefetches")
    return Chart(f"claim4_{tier}", spec, table, label[:1].upper() + label[1:])


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
    rung, base = best[first], best[counts[0]]
    many = units.plural(first, "worker") if first else "no worker"
    return (
        f"{label[:1].upper() + label[1:]}: waiting falls from {stall(base)} with {counts[0] or 'no'} "
        f"worker{'s' if counts[0] != 1 else ''} to {stall(rung)} with {many}; more do not help, {_because(rung)}."
    )


def _because(rung: Rung) -> str:
    """What is in the way, from the run's own verdict."""
    cause = rung.said.cause or ""
    cores = (rung.said.meta.get("machine") or {}).get("usable_cores")
    if cause == "accelerator" or rung.said.band == "not":
        return "since hardly anything is left to wait for"
    if cause.startswith("storage"):
        return "since the disk is never idle any more"
    if cause == "cpu-contention":
        return f"since the {cores or 'few'} CPU cores of this machine are taken"
    if cause in ("decode", "collate", "transfer") or cause.startswith("transform"):
        return "since the work of the CPU on the images sets the pace"
    return f"since the time goes to {cause or 'something that was not observed'}"


COPIES = (
    ("ordinary memory", "5_copy_pageable"),
    ("pinned memory", "5_copy_pinned"),
    ("pinned, copied ahead", "5_copy_overlapped"),
    ("nothing to copy", "5_copy_none"),
)
LADDER = (
    ("hard disk", "5_ladder-tier=hdd"),
    ("SSD", "5_ladder-tier=ssd"),
    ("NVMe SSD", "5_ladder-tier=nvme"),
    ("in memory", "5_ladder-tier=ram"),
    ("in memory, ready and pinned", "5_ladder_pinned"),
)


def copies(course: Course) -> Claim:
    """Claim 5: the copy from host memory, and the whole ladder."""
    claim = Claim(
        5,
        "From RAM to the GPU's memory costs time too",
        "Data in the computer's RAM (host memory) is not on the GPU yet: the copy to the GPU's memory has its price.",
        "",
        [(EMULATED, "the link to the accelerator, the accelerator, disks"), (MEASURED, "the loop, memory")],
        "The link between the two (PCI Express, third generation, as in the lecture's time) moves 12 GB a second "
        "from pinned memory, which the operating system has promised not to move, so that the accelerator can "
        "fetch the batch by itself. From ordinary memory the batch first goes through a pinned buffer: half the "
        "speed, and the training loop stands still meanwhile. If the next batch is copied while the present one "
        "is computed, the copy costs nothing at all, as if the data had been on the accelerator from the start.",
        [
            (
                "A newer link",
                "pipeprof run scenarios/lesson/5_copy_pageable.yaml --set accelerator.link=pcie-gen5",
            ),
            ("In your own code", "DataLoader(..., pin_memory=True); batch.to('cuda', non_blocking=True)"),
        ],
    )
    runs = labelled(course, COPIES, claim)
    if runs:
        told = ", ".join(f"{label} {units.percent(rung.said.utilization)}" for label, rung in runs)
        claim.answer = f"Share of the time that the accelerator (emulated) computed: {told}."
        claim.charts = [lesson_draw.days("claim5_days", runs, "The same loop, the batch copied in four ways")]
        claim.legend = lesson_draw.legend([rung for _, rung in runs])
    ladder = labelled(course, LADDER, claim)
    if ladder:
        how = (
            "Samples that need no decoding, before an accelerator faster than any of these places: nothing "
            "but the way of the data shows."
        )
        claim.charts.append(
            lesson_draw.days("claim5_ladder", ladder, "The whole ladder, from disk to device", how)
        )
        told = ", ".join(f"{label} {stall(rung)}" for label, rung in ladder)
        claim.answer += f" On the ladder below, it waited: {told}."
        claim.legend = lesson_draw.legend([rung for _, rung in (*runs, *ladder)])
    claim.answer = claim.answer.strip() or "Not observed: none of its runs was made."
    return claim
