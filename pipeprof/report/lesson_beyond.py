"""Claim 10, beyond the lecture: predicted beside measured, the cheapest cures, and many accelerators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pipeprof.errors import PipeprofError
from pipeprof.report import charts, lesson_draw, units
from pipeprof.report.lesson_claims import unobserved
from pipeprof.report.lesson_compute import full_rate
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.lesson_words import Claim, claim
from pipeprof.report.section import Chart
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.neighbours import open_run
from pipeprof.simulate.predict import Prediction, predict

TARGET: Final = 0.05
STEPS: Final = 200
"""Steps of each prediction of this page: shares in percent need no more."""
PLACES: Final = {
    "hdd": "hard disk",
    "ssd": "SSD",
    "nvme": "NVMe SSD",
    "ram": "in RAM",
    "network": "network storage",
}
CORES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SCALES: Final = (
    ("1 accelerator", 1, 1),
    ("8 accelerators in one machine", 8, 1),
    ("64 such machines, shared storage", 8, 64),
)
"""(label, accelerators a machine, machines)."""


def beyond(course: Course) -> Claim:
    """Claim 10."""
    told = claim(10, course.directory)
    first = course.get("1_hdd")
    if first is None:
        return unobserved(told, course, "1_hdd")
    try:
        demands = open_run(first.answer.run)
        _beside(course, demands, told)
    except PipeprofError as error:
        told.missing.append(f"Predicted beside measured: not possible from this run ({_one_line(error)}).")
    _cheapest(course, told)
    _many(course, told)
    if not told.answer and told.more:
        told.answer = told.more.pop(0)
    if not told.answer:
        told.answer, told.short = "Not observed: nothing could be predicted.", units.NOT_OBSERVED
    return told


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def question(rung: Rung) -> dict[str, str]:
    """The knobs of a run as a question to the simulator."""
    loader, storage = rung.resolved.get("loader") or {}, rung.resolved.get("storage") or {}
    asked = {"storage.tier": str(storage.get("tier")), "loader.workers": str(loader.get("workers") or 0)}
    if loader.get("prefetch"):
        asked["loader.prefetch"] = str(loader["prefetch"])
    if storage.get("keep") == "decoded":
        asked["storage.keep"] = "decoded"
    return asked


def _beside(course: Course, demands: Demands, told: Claim) -> None:
    """Each run of claims 1, 2 and 4, and those of claim 3 in memory, predicted beside measured."""
    names = ("1_hdd", "2_ssd", "2_nvme", "3_ram", "4_workers", "4_elsewhere")
    pairs: list[tuple[Rung, Prediction]] = []
    for rung in (rung for name in names for rung in course.of(name) if rung.rate):
        knobs = change(demands.measured, question(rung), demands.step_ns)
        pairs.append((rung, predict(demands, knobs, STEPS)))
    if not pairs:
        return
    off = sorted(abs(found.throughput.value / (rung.rate or 1.0) - 1) for rung, found in pairs)
    told.answer = (
        f"From the first run alone the speed of {units.plural(len(pairs), 'run')} was predicted "
        f"(simulated), with a median error of "
        f"{units.percent(off[len(off) // 2])} and {units.percent(off[-1])} at the most."
    )
    told.short = f"predicted within {units.percent(off[len(off) // 2])}, in the median"
    told.charts.append(_trust(pairs))


def _trust(pairs: list[tuple[Rung, Prediction]]) -> Chart:
    rows, cells = [], []
    for rung, found in pairs:
        speeds = (units.sample_rate(found.throughput.value), units.sample_rate(rung.rate))
        rows.append(
            {
                "predicted": found.throughput.value,
                "measured": rung.rate or 0.0,
                "label": setting(rung),
                "predicted_text": speeds[0],
                "measured_text": speeds[1],
            }
        )
        cells.append([setting(rung), *speeds, units.percent(found.stall.value), units.percent(rung.stall)])
    heads = ["run", "speed, predicted", "speed, measured", "waiting, predicted", "waiting, measured"]
    table = lesson_draw.table("Predicted beside measured", heads, cells)
    spec = charts.trust(rows, f"{len(pairs)} runs.")
    return Chart("claim10_trust", spec, table, "Predicted beside measured, one point a run")


def setting(rung: Rung) -> str:
    """`SSD, 4 workers, prefetch 2`."""
    loader, storage = rung.resolved.get("loader") or {}, rung.resolved.get("storage") or {}
    tier, count = str(storage.get("tier")), int(loader.get("workers") or 0)
    parts = [PLACES.get(tier, tier), *(["decoded"] if storage.get("keep") == "decoded" else [])]
    parts.append(units.plural(count, "worker") if count else "no workers")
    parts += [f"prefetch {loader['prefetch']}"] if loader.get("prefetch") else []
    return ", ".join(parts)


def _cheapest(course: Course, told: Claim) -> None:
    """What tuning found, from the cheapest place for the data on."""
    places = course.tuning.get("places") or []
    if not places:
        told.missing.append(f"The cheapest cures: not observed ({course.why_missing('10_tune')}).")
        return
    cells = [_tuned_row(place) for place in places]
    heads = ["place for the data", "best setting found", "waiting", "how it was found"]
    told.tables.append(lesson_draw.table("The cheapest cures, from the cheapest place on", heads, cells))
    found = next((one for one in places if one.get("stall") is not None and one["stall"] < TARGET), None)
    if found is None:
        told.answer += (
            f" No set of cures brought the waiting under {units.percent(TARGET)} on this machine (tuned)."
        )
    else:
        told.more.append(
            f"The cheapest cures that bring the waiting under {units.percent(TARGET)}: {_place(found)}, "
            f"{_loader(found)}; it then waits {units.percent(found['stall'])} (tuned, measured)."
        )


def _tuned_row(place: dict[str, Any]) -> list[str]:
    if place.get("stall") is None:
        said = "predicted: not worth measuring" if not place.get("why") else str(place["why"])
        return [_place(place), _loader(place), units.percent(place.get("predicted_stall")), said]
    runs = units.plural(int(place.get("trials") or 0), "short run")
    return [_place(place), _loader(place), units.percent(place["stall"]), f"tuned and measured, {runs}"]


def _place(place: dict[str, Any]) -> str:
    decoded = ", decoded" if place.get("keep") == "decoded" else ""
    return f"{PLACES.get(str(place.get('tier')), str(place.get('tier')))}{decoded}"


def _loader(place: dict[str, Any]) -> str:
    if place.get("workers") is None:
        return units.NOT_OBSERVED
    count = int(place["workers"])
    many = units.plural(count, "worker") if count else "no workers"
    return f"{many}, prefetch {place['prefetch']}" if place.get("prefetch") else many


def _many(course: Course, told: Claim) -> None:
    """Eight accelerators in one machine, then 64 such machines on shared storage."""
    fed = [rung for rung in course.of("4_workers") if rung.cell.get("storage.tier") == "ssd" and rung.rate]
    if not fed:
        told.missing.append(f"Many accelerators: not simulated ({course.why_missing('4_workers')}).")
        return
    best = max(fed, key=lambda rung: rung.rate or 0.0)
    try:
        demands = open_run(best.answer.run)
        rows = [_scaled(demands, best, *scale) for scale in SCALES]
    except PipeprofError as error:
        told.missing.append(f"Many accelerators: not simulated ({_one_line(error)}).")
        return
    heads = [
        "simulated",
        "as the machine is, it waits",
        "CPU cores needed",
        "then it waits, data in RAM",
        "needs of storage",
    ]
    caption = f"What more accelerators would need (simulated, from the run: {setting(best)})"
    told.tables.append(lesson_draw.table(caption, heads, rows))
    told.more.append(
        f"Eight such accelerators in one machine would need {rows[1][2]} CPU cores and {rows[1][4]} of "
        f"storage, 64 such machines {rows[2][4]} (simulated)."
    )


def _scaled(demands: Demands, rung: Rung, label: str, ranks: int, nodes: int) -> list[str]:
    """One row: what so many accelerators get of machines like this one, and what they would need."""
    here = replace(demands.measured, ranks=ranks, nodes=nodes, neighbours=0.0)
    now = predict(demands, here, STEPS // 2)
    cores, then = _enough_cores(demands, here)
    needed = (full_rate(rung) or 0.0) * ranks * nodes * (rung.bytes_per_sample or 0.0)
    return [
        label,
        units.percent(now.stall.value),
        f"{'' if cores else 'more than '}{cores or CORES[-1]}{' each' if nodes > 1 else ''}",
        units.percent(then.stall.value),
        units.byte_rate(needed),
    ]


def _enough_cores(demands: Demands, knobs: Knobs) -> tuple[int | None, Prediction]:
    """The fewest cores of a machine that bring the waiting under the target; its storage is fast enough."""
    free = change(knobs, {"storage.tier": "ram"})
    found = None
    for cores in (one for one in CORES if one >= knobs.ranks / 2):
        workers = max(1, min(16, -(-cores // knobs.ranks) + 1))
        found = predict(demands, replace(free, cores=float(cores), workers=workers), STEPS // 2)
        if found.stall.value < TARGET:
            return cores, found
    assert found is not None
    return None, found
