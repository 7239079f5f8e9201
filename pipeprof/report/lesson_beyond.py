"""Claim 10, beyond the lecture: predicted beside measured, the cheapest cures, and many accelerators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof.errors import PipeprofError
from pipeprof.report import charts, lesson_draw, units
from pipeprof.report.lesson_claims import MEASURED, SIMULATED, Claim
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.section import Chart
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.neighbours import open_run
from pipeprof.simulate.predict import Prediction, predict

TARGET: Final = 0.05
STEPS: Final = 200
"""Steps of each prediction of this page: shares in percent need no more."""
TIER_NAMES: Final = {"hdd": "hard disk", "ssd": "SSD", "nvme": "NVMe SSD", "ram": "in memory"}
PRICES: Final = ("hdd", "ssd", "nvme", "ram")
"""Places for the data from the cheapest on."""
WORKERS: Final = (0, 1, 2, 3, 4, 6, 8)
CORES: Final = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Pair:
    """One run, predicted from the first run of the course, and as it was measured."""

    label: str
    predicted: Prediction
    rung: Rung


def beyond(course: Course) -> Claim:
    """Claim 10."""
    claim = Claim(
        10,
        "Beyond the lecture: predict it, then buy it",
        "(Not in the lecture.) Which cure is worth its price, and how far does it go when there are eight "
        "accelerators, or 64 machines?",
        "",
        [
            (MEASURED, "each run of claims 1 to 4, with its emulated parts"),
            (SIMULATED, "everything called predicted: computed, never run"),
        ],
        "A simulator takes what one run measured (the CPU time of each step of the work, the reads, the step of "
        "the accelerator) and plays the same training through with another disk or other workers. All points "
        "here are predicted from the very first run, hard disk and no workers; the closer they lie to the line, "
        "the more the simulator may be believed where nobody has measured.",
        [
            ("Every cure, by predicted gain", f"pipeprof predict {course.directory / '1_hdd'}"),
            ("Let the machine try the best ones", "pipeprof tune scenarios/lesson/1_hdd.yaml"),
            (
                "Eight accelerators on your machine",
                f"pipeprof predict {course.directory / '1_hdd'} --ranks 8",
            ),
        ],
    )
    first = course.get("1_hdd")
    if first is None:
        claim.answer = f"Not observed: the first run is missing, {course.why_missing('1_hdd')}."
        return claim
    try:
        demands = open_run(first.answer.run)
    except PipeprofError as error:
        claim.answer = (
            f"Not observed: nothing can be predicted from the first run ({' '.join(str(error).split())})."
        )
        return claim
    _beside(course, demands, claim)
    _cheapest(course, demands, claim)
    _many(course, claim)
    claim.answer = claim.answer.strip() or "Not observed: nothing could be predicted."
    return claim


def _settings(rung: Rung) -> dict[str, str]:
    """The knobs of a run as questions to the simulator."""
    said = rung.resolved
    loader, storage = said.get("loader") or {}, said.get("storage") or {}
    asked = {"storage.tier": str(storage.get("tier")), "loader.workers": str(loader.get("workers") or 0)}
    if loader.get("prefetch"):
        asked["loader.prefetch"] = str(loader["prefetch"])
    if storage.get("keep") == "decoded":
        asked["storage.keep"] = "decoded"
    return asked


def _beside(course: Course, demands: Demands, claim: Claim) -> None:
    """Each run of claims 1 to 4, predicted beside measured."""
    pairs = []
    for rung in _predictable(course):
        try:
            knobs = change(demands.measured, _settings(rung), demands.step_ns)
            pairs.append(Pair(_label(rung), predict(demands, knobs, STEPS), rung))
        except PipeprofError as error:
            claim.missing.append(f"{_label(rung)}: not predicted, {' '.join(str(error).split())}.")
    if not pairs:
        return
    off = sorted(abs(p.predicted.throughput.value / p.rung.rate - 1) for p in pairs if p.rung.rate)
    claim.answer += (
        f"From the first run alone, the speed of {units.plural(len(pairs), 'run')} was predicted with a median "
        f"error of {units.percent(off[len(off) // 2])} (largest {units.percent(off[-1])})."
    )
    rows = [
        {
            "predicted": p.predicted.throughput.value,
            "measured": p.rung.rate or 0.0,
            "label": p.label,
            "predicted_text": units.sample_rate(p.predicted.throughput.value),
            "measured_text": units.sample_rate(p.rung.rate),
        }
        for p in pairs
    ]
    cells = [
        [
            p.label,
            units.sample_rate(p.predicted.throughput.value),
            units.sample_rate(p.rung.rate),
            units.percent(p.predicted.stall.value),
            units.percent(p.rung.stall),
        ]
        for p in pairs
    ]
    heads = ["run", "speed, predicted", "speed, measured", "waiting, predicted", "waiting, measured"]
    table = lesson_draw.table("Predicted beside measured", heads, cells)
    spec = charts.trust(rows, f"{len(pairs)} runs.")
    claim.charts.append(Chart("claim10_trust", spec, table, "Predicted beside measured, one point a run"))


def _predictable(course: Course) -> Iterator[Rung]:
    for name in ("1_hdd", "2_ssd", "2_nvme", "3_ram", "3_decoded", "4_workers"):
        yield from course.of(name)


def _label(rung: Rung) -> str:
    said = rung.resolved
    loader, storage = said.get("loader") or {}, said.get("storage") or {}
    place = TIER_NAMES.get(str(storage.get("tier")), str(storage.get("tier")))
    decoded = ", decoded" if storage.get("keep") == "decoded" else ""
    count = int(loader.get("workers") or 0)
    more = f", prefetch {loader['prefetch']}" if loader.get("prefetch") else ""
    return f"{place}{decoded}, {units.plural(count, 'worker') if count else 'no workers'}{more}"


def _cheapest(course: Course, demands: Demands, claim: Claim) -> None:
    """The first cure, from the cheapest on, with which hardly anything is waited for."""
    for tier in PRICES:
        for workers in WORKERS:
            knobs = change(
                demands.measured, {"storage.tier": tier, "loader.workers": str(workers)}, demands.step_ns
            )
            told = predict(demands, knobs, STEPS)
            if told.stall.value < TARGET:
                many = units.plural(workers, "worker") if workers else "no workers"
                claim.answer += (
                    f" The cheapest cure that brings the waiting under {units.percent(TARGET)}: {TIER_NAMES[tier]} and {many} "
                    f"(predicted: {units.percent(told.stall.value)}; not confirmed by tuning)."
                )
                return
    claim.answer += f" On this machine's {units.digits(demands.measured.cores, 2)} CPU cores no disk and no number of workers brings the waiting under {units.percent(TARGET)} (predicted)."


def _many(course: Course, claim: Claim) -> None:
    """Eight accelerators on one machine, then 64 machines on shared storage."""
    fed = [
        rung
        for rung in course.of("4_workers")
        if rung.cell.get("storage.tier") == "ssd" and rung.stall is not None
    ]
    if not fed:
        claim.missing.append(f"Many accelerators: not simulated, {course.why_missing('4_workers')}.")
        return
    best = min(fed, key=lambda rung: (rung.stall or 0.0, rung.name))
    try:
        demands = open_run(best.answer.run)
        rows = [_scaled(demands, best, label, ranks, nodes) for label, ranks, nodes in SCALES]
    except PipeprofError as error:
        claim.missing.append(f"Many accelerators: not simulated, {' '.join(str(error).split())}.")
        return
    heads = [
        "simulated",
        "waiting as the machine is",
        "needs CPU cores",
        "then waits",
        "needs from storage",
        "images a second",
    ]
    claim.tables.append(
        lesson_draw.table(
            f"What more accelerators would need (simulated from the run: {_label(best)})", heads, rows
        )
    )
    claim.answer += f" Eight such accelerators in one machine would need {rows[1][2]} CPU cores and {rows[1][4]} from storage, 64 such machines {rows[2][4]} (simulated)."


SCALES: Final = (
    ("1 accelerator", 1, 1),
    ("8 accelerators in one machine", 8, 1),
    ("64 machines of 8, shared storage", 8, 64),
)


def _scaled(demands: Demands, rung: Rung, label: str, ranks: int, nodes: int) -> list[str]:
    here = replace(demands.measured, ranks=ranks, neighbours=0.0)
    now = predict(demands, here, STEPS // 2)
    cores, enough = _enough_cores(demands, here)
    full = (rung.full_rate or 0.0) * ranks * nodes
    size = rung.bytes_per_sample or 0.0
    return [
        label,
        units.percent(now.stall.value) if nodes == 1 else "as one of them",
        f"{cores} each machine" if nodes > 1 and cores else str(cores) if cores else f"more than {CORES[-1]}",
        units.percent(enough.stall.value),
        units.byte_rate(full * size),
        units.digits(full),
    ]


def _enough_cores(demands: Demands, knobs: Knobs) -> tuple[int | None, Prediction]:
    """The fewest cores of one machine, with two workers for each core, that bring the waiting under target."""
    told = None
    for cores in CORES:
        workers = max(2, min(16, -(-2 * cores // knobs.ranks)))
        told = predict(demands, replace(knobs, cores=float(cores), workers=workers), STEPS // 2)
        if told.stall.value < TARGET:
            return cores, told
    assert told is not None
    return None, told


Rows = Sequence[dict[str, Any]]
