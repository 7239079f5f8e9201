"""Claim 10, beyond the lecture: predicted against measured, the cheapest cures, and many accelerators."""

from __future__ import annotations

from pipeprof import units
from pipeprof.errors import PipeprofError
from pipeprof.lesson.claims import draw
from pipeprof.lesson.claims.claim import Claim, blank_claim
from pipeprof.lesson.claims.data import unobserved
from pipeprof.lesson.kept import TunedPlace
from pipeprof.lesson.predictions import MOST_CORES, PLACE_NAMES, Scale, pairs_of, scales, setting
from pipeprof.lesson.results import Results
from pipeprof.lesson.tuning import TARGET
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart
from pipeprof.simulate.matrix_predictions import Pair, errors


def beyond(results: Results) -> Claim:
    """Build claim 10: predicted against measured, the cheapest cures, many accelerators."""
    claim = blank_claim(10, results.directory)
    first = results.run("1_hdd")
    if first is None:
        return unobserved(claim, results, "1_hdd")
    try:
        _predicted_against_measured(results, claim)
    except PipeprofError as error:
        claim.missing.append(f"Predicted beside measured: not possible from this run ({_one_line(error)}).")
    _cheapest(results, claim)
    _many(results, claim)
    if not claim.answer and claim.more:
        claim.answer = claim.more.pop(0)
    if not claim.answer:
        claim.answer, claim.short = "Not observed: nothing could be predicted.", units.NOT_OBSERVED
    return claim


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _predicted_against_measured(results: Results, claim: Claim) -> None:
    """Draw each run of claims 1, 2 and 4, and those of claim 3 in memory, predicted against measured."""
    pairs = pairs_of(results)
    error = errors(pairs)
    if error is None:
        return
    claim.answer = (
        f"From the first run alone the speed of {units.plural(len(pairs), 'run')} was predicted "
        f"(simulated), with a median error of "
        f"{units.percent(error.median)} and {units.percent(error.largest)} at the most."
    )
    claim.short = f"Predictions were off by {units.percent(error.median)} in the median."
    claim.charts.append(_trust(pairs))


def _trust(pairs: list[Pair]) -> Chart:
    rows, cells = [], []
    for pair in pairs:
        predicted = pair.prediction.throughput.value
        speeds = (units.sample_rate(predicted), units.sample_rate(pair.measured))
        rows.append(
            {
                "predicted": predicted,
                "measured": pair.measured,
                "label": pair.label,
                "predicted_text": speeds[0],
                "measured_text": speeds[1],
            }
        )
        stalls = (units.percent(pair.prediction.stall.value), units.percent(pair.stall))
        cells.append([pair.label, *speeds, *stalls])
    heads = ["run", "speed, predicted", "speed, measured", "waiting, predicted", "waiting, measured"]
    table = draw.table("Predicted beside measured", heads, cells)
    spec = charts.trust(rows, f"{len(pairs)} runs.")
    return Chart("claim10_trust", spec, table, "Predicted beside measured, one point a run")


def _cheapest(results: Results, claim: Claim) -> None:
    """Add what tuning came to, from the cheapest place for the data on."""
    places = results.tuning.places
    if not places:
        claim.missing.append(f"The cheapest cures: not observed ({results.why_missing('10_tune')}).")
        return
    cells = [_tuned_row(place) for place in places]
    heads = ["place for the data", "best setting found", "waiting", "how it was found"]
    claim.tables.append(draw.table("The cheapest cures, from the cheapest place on", heads, cells))
    cheapest = next((each for each in places if each.stall is not None and each.stall < TARGET), None)
    if cheapest is None:
        claim.answer += (
            f" No set of cures brought the waiting under {units.percent(TARGET)} on this machine (tuned)."
        )
    else:
        claim.more.append(
            f"The cheapest cures that bring the waiting under {units.percent(TARGET)}: {_place(cheapest)}, "
            f"{_loader(cheapest)}; it then waits {units.percent(cheapest.stall)} (tuned, measured)."
        )


def _tuned_row(place: TunedPlace) -> list[str]:
    if place.stall is None:
        said = place.why or "predicted: not worth measuring"
        return [_place(place), _loader(place), units.percent(place.predicted_stall), said]
    runs = units.plural(place.trials or 0, "short run")
    return [_place(place), _loader(place), units.percent(place.stall), f"tuned and measured, {runs}"]


def _place(place: TunedPlace) -> str:
    decoded = ", decoded" if place.keep == "decoded" else ""
    return f"{PLACE_NAMES.get(place.tier, place.tier)}{decoded}"


def _loader(place: TunedPlace) -> str:
    if place.workers is None:
        return units.NOT_OBSERVED
    many = units.plural(place.workers, "worker") if place.workers else "no workers"
    return f"{many}, prefetch {place.prefetch}" if place.prefetch else many


def _many(results: Results, claim: Claim) -> None:
    """Add eight accelerators in one machine, then 64 such machines on shared storage."""
    fed = [run for run in results.of("4_workers") if run.tier == "ssd" and run.rate]
    if not fed:
        claim.missing.append(f"Many accelerators: not simulated ({results.why_missing('4_workers')}).")
        return
    best = max(fed, key=lambda run: run.rate or 0.0)
    try:
        rows = [_row(scale) for scale in scales(best)]
    except PipeprofError as error:
        claim.missing.append(f"Many accelerators: not simulated ({_one_line(error)}).")
        return
    heads = [
        "simulated",
        "as the machine is, it waits",
        "CPU cores needed",
        "then it waits, data in RAM",
        "needs of storage",
    ]
    caption = f"What more accelerators would need (simulated, from the run: {setting(best)})"
    claim.tables.append(draw.table(caption, heads, rows))
    claim.more.append(
        f"Eight such accelerators in one machine would need {rows[1][2]} CPU cores and {rows[1][4]} of "
        f"storage, 64 such machines {rows[2][4]} (simulated)."
    )


def _row(scale: Scale) -> list[str]:
    """Return a row: what that many accelerators get from machines like this one, and what they would need."""
    cores = str(scale.cores) if scale.cores else f"more than {MOST_CORES}"
    return [
        scale.label,
        units.percent(scale.stall),
        f"{cores}{' each' if scale.nodes > 1 else ''}",
        units.percent(scale.stall_in_memory),
        units.byte_rate(scale.storage_bytes_per_s),
    ]
