"""What to do, what if, can you trust it: the predictions that belong to a run, ready to be shown.

An answer of the analysis alone has no predictions; the sections then say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipeprof.report import charts, forecast, units, words
from pipeprof.report.facts import Answer, Facts
from pipeprof.report.footnotes import merged
from pipeprof.report.section import Chart, Row, Section, Table
from pipeprof.simulate.fixes import NOISE, Ranked, advised
from pipeprof.simulate.predict import Prediction
from pipeprof.simulate.search import HeatMap, heat_map

MOST_CARDS: Final = 3
MAP_STEPS: Final = 100
"""Measured steps of each prediction of the heat map: a page is built in seconds, a cell is in percent."""
MAP_WORKERS: Final = (0, 1, 2, 4, 8, 16)
MAP_PREFETCH: Final = (1, 2, 4)
TRUSTED: Final = 0.10
"""A replay further than this from what was measured makes gains hints."""


def best(answer: Answer) -> list[Ranked]:
    """At most three fixes worth doing: the advised one, then the largest gains of other kinds.

    More cores cost money, and are among them only where the verdict names them.
    """
    named = answer.verdict.fix == "more-cores"
    fixes = [one for one in getattr(answer, "fixes", ()) if named or one.fix.word != "more-cores"]
    first = advised(fixes)
    chosen = [first] if first is not None else []
    for one in fixes:
        worth = one.feasible and one.gain > NOISE and one.fix.word not in {c.fix.word for c in chosen}
        if worth and len(chosen) < MOST_CARDS:
            chosen.append(one)
    return chosen[:1] + sorted(chosen[1:], key=lambda one: -one.gain)


def gain(one: Ranked) -> str:
    """The speed with the fix over the speed without: `2.9×`, or `+12 %` below one and a half."""
    return f"{units.digits(1 + one.gain)}×" if one.gain >= 0.5 else f"+{units.percent(one.gain)}"


def costs(one: Ranked) -> str:
    """What a fix needs: `1.2 GB of memory, 4 cores`; empty where it needs nothing."""
    size = one.fix.ram_bytes
    memory = f"{units.size(size)} of memory" if size else "memory (how much was not observed)"
    parts = [] if size == 0 else [memory]
    parts += [f"{units.digits(one.fix.cores, 2)} cores"] if one.fix.cores else []
    return ", ".join(parts)


def cards(answer: Answer, facts: Facts) -> list[dict[str, str]]:
    """The fixes of the first screen, each with its predicted gain and what to type."""
    emulated = " with emulated parts" if facts.emulated else ""
    found = []
    for one in best(answer):
        rate = one.prediction.throughput
        notes = [
            f"{forecast.estimate(rate)} samples/s{emulated}, "
            f"stall {units.percent(one.prediction.stall.value)}; "
            f"then limited by {forecast.limit(one.prediction.limit)}.",
            f"Needs {costs(one)}." if costs(one) else "",
            f"Assumes: {one.fix.assumption}." if one.fix.assumption else "",
            *(f"Extrapolated: {text}." for text in _further(answer, one.prediction)),
        ]
        title = one.fix.title[:1].upper() + one.fix.title[1:]
        found.append(
            {
                "gain": gain(one),
                "of": f"{'the ' if one.gain >= 0.5 else ''}speed, predicted",
                "title": title,
                "note": " ".join(note for note in notes if note),
                "code": one.fix.how,
            }
        )
    if not found and facts.fix in words.FIXES and not facts.healthy:
        note = "Chosen from where the time went; no gain is predicted for it from this run."
        found.append(
            {
                "gain": "?",
                "of": "gain not predicted",
                "title": words.FIXES[facts.fix],
                "note": note,
                "code": "",
            }
        )
    return found


def _further(answer: Answer, prediction: Prediction) -> list[str]:
    """How the prediction goes beyond the run, but for what all predictions from this run share."""
    base: Prediction | None = getattr(answer, "base", None)
    shared = base.extrapolations if base is not None else ()
    return [text for text in prediction.extrapolations if text not in shared]


def trust_gap(answer: Answer, facts: Facts) -> float | None:
    """How far the replay of this run is from it, as a share of its throughput; None where unknown."""
    replay: Prediction | None = getattr(answer, "replay", None)
    if replay is None or not facts.throughput:
        return None
    return replay.throughput.value / facts.throughput - 1


def hint(answer: Answer, facts: Facts) -> str:
    """How to read the fixes, and a warning where the simulator does not know this run."""
    gap = trust_gap(answer, facts)
    said = (
        "Ranked by predicted gain; of gains within noise of the largest, the least trouble comes first. "
        "A short run checks each."
    )
    if gap is None or abs(gap) <= TRUSTED:
        return said
    return (
        f"{said} Take the gains as hints: played back unchanged, this run comes out "
        f"{units.percent(abs(gap))} {'faster' if gap > 0 else 'slower'} than it was measured."
    )


def what_if(answer: Answer, facts: Facts) -> Section:
    """The heat map of workers and prefetch on this storage, and every fix."""
    section = Section(
        "whatif",
        "What if",
        "Predicted share of the time spent waiting for data, in percent, for other numbers of workers and "
        "prefetched batches on the same storage.",
    )
    if getattr(answer, "demands", None) is None:
        why = getattr(answer, "unpredicted", "") or "the run was not predicted from"
        section.missing = f"No prediction: {' '.join(why.split())}."
        return section
    found, current, wanted = _map(answer)
    section.how += " This run is outlined in grey" + (", the advised one in blue." if wanted else ".")
    section.charts = [
        Chart("whatif", charts.heat_map(_cells(found, current, wanted), _says(found), "workers", "prefetch"))
    ]
    section.charts[0].table = _map_table(found)
    rest_on = [text for row in found.cells for cell in row for text in cell.extrapolations]
    section.facts = [("Extrapolated", text) for text in merged(rest_on)]
    bars = _bars(answer)
    if bars:
        described = ", ".join(f"{bar['fix']} {bar['text']}" for bar in bars)
        how = "A line spans the interval that should hold the measured gain nine times in ten."
        section.charts.append(
            Chart("fixes", charts.gains(bars, described), _fixes(answer), "What each fix would add", how)
        )
    else:
        section.tables = [_fixes(answer)]
    return section


MOST_BARS: Final = 8


def _bars(answer: Answer) -> list[dict[str, Any]]:
    """The feasible fixes that gain, the largest first."""
    base: Prediction | None = getattr(answer, "base", None)
    if base is None or not base.throughput.value:
        return []
    now = base.throughput.value
    found: list[dict[str, Any]] = []
    for one in getattr(answer, "fixes", ()):
        if one.feasible and one.gain > NOISE and len(found) < MOST_BARS:
            rate = one.prediction.throughput
            value, low, high = (100 * (each / now - 1) for each in (rate.value, rate.low, rate.high))
            text = f"{gain(one)} ({forecast.estimate(rate)} samples/s)"
            told = {"fix": one.fix.title, "text": text, "colour": words.colour("accelerator")}
            found.append({**told, "value": value, "low": low, "high": high})
    return found


Place = tuple[int, int]


def _map(answer: Answer) -> tuple[HeatMap, Place, Place | None]:
    demands = answer.demands  # type: ignore[attr-defined]
    knobs = demands.measured
    current = (knobs.workers, knobs.prefetch)
    first = next(iter(best(answer)), None)
    wanted = None
    if first is not None and first.fix.word in ("more-workers", "fewer-workers", "deeper-prefetch"):
        wanted = (first.fix.knobs.workers, first.fix.knobs.prefetch)
    places = [current, *([wanted] if wanted else [])]
    most = max(2 * knobs.cores, *(2 * place[0] for place in places), 4)
    workers = sorted({*(n for n in MAP_WORKERS if n <= most), *(place[0] for place in places)})
    prefetch = sorted({*MAP_PREFETCH, *(place[1] for place in places)})
    warmup = max(demands.warmup, max(workers) * max(prefetch))
    return heat_map(demands, knobs, workers, prefetch, MAP_STEPS + warmup), current, wanted


def _cells(found: HeatMap, current: Place, wanted: Place | None) -> list[dict[str, Any]]:
    boxes = []
    for workers, row in zip(found.workers, found.cells, strict=True):
        for prefetch, cell in zip(found.prefetch, row, strict=True):
            stall = cell.stall.value
            fill = charts.stall_fill(stall)
            here = workers == current[0] and (prefetch == current[1] or workers == 0)
            there = wanted is not None and (workers, prefetch) == wanted
            boxes.append(
                {
                    "across": workers,
                    "down": prefetch,
                    "text": units.percent(stall).removesuffix(" %"),
                    "fill": fill,
                    "ink": words.ink(fill),
                    "outline": "this run" if here else "advised" if there else "none",
                    "note": f"{units.percent(stall)} ({units.interval((cell.stall.low, cell.stall.high))}), "
                    f"{units.digits(cell.throughput.value)} samples/s, predicted",
                }
            )
    return boxes


def _says(found: HeatMap) -> str:
    stalls = [cell.stall.value for row in found.cells for cell in row]
    return f"The predicted stall lies between {units.percent(min(stalls))} and {units.percent(max(stalls))}."


def _map_table(found: HeatMap) -> Table:
    rows = [
        Row([str(workers), *(units.percent(cell.stall.value) for cell in row)])
        for workers, row in zip(found.workers, found.cells, strict=True)
    ]
    return Table("Predicted stall", ["workers", *(f"prefetch {p}" for p in found.prefetch)], rows)


def _fixes(answer: Answer) -> Table:
    fixes: Sequence[Ranked] = getattr(answer, "fixes", ())
    rows = [
        Row(
            [
                one.fix.title,
                f"{'+' if one.gain >= 0 else '−'}{units.percent(abs(one.gain))}",
                forecast.estimate(one.prediction.throughput),
                units.percent(one.prediction.stall.value),
                (costs(one) or "–") + ("" if one.feasible else ", too much here"),
                forecast.limit(one.prediction.limit),
            ],
            how="; ".join((one.fix.how, *_rests_on(answer, one))),
        )
        for one in fixes
    ]
    heads = ["fix", "gain", "samples/s (interval)", "stall", "needs", "then limited by"]
    return Table(
        "Every fix that was considered",
        heads,
        rows,
        f"All {len(rows)} fixes that were considered",
        folded=True,
    )


def _rests_on(answer: Answer, one: Ranked) -> list[str]:
    assumed = [f"assumes: {one.fix.assumption}"] if one.fix.assumption else []
    return assumed + [f"extrapolated: {text}" for text in _further(answer, one.prediction)]


def trust(answer: Answer, facts: Facts) -> Section:
    """The run played back unchanged, beside what was measured."""
    section = Section(
        "trust",
        "Can you trust it",
        "The predictor plays this run back unchanged. The closer it comes to what was measured, the more its "
        "other answers are worth; only a run with the fix proves it.",
    )
    replay: Prediction | None = getattr(answer, "replay", None)
    if replay is None:
        section.missing = "Nothing was predicted from this run."
        return section
    rows = []
    for label, measured, predicted, text in (
        ("throughput", facts.throughput, replay.throughput, units.sample_rate),
        ("utilisation", facts.utilization, replay.utilization, units.percent),
        ("stall", facts.stall_share, replay.stall, units.percent),
    ):
        between = f"{text(predicted.low)} to {text(predicted.high)}"
        rows.append(Row([label, text(measured), text(predicted.value), between]))
    gap = trust_gap(answer, facts)
    if gap is not None and abs(gap) > TRUSTED:
        section.how += (
            f" Here it is {units.percent(abs(gap))} off: take the predictions of this page as hints."
        )
    section.tables = [Table("Predicted beside measured", ["", "measured", "played back", "interval"], rows)]
    headspace = getattr(answer, "headspace_samples_per_s", None)
    if headspace is not None:
        section.facts = [
            (
                "Headspace",
                f"{forecast.estimate(headspace)} samples/s more at the most, "
                "with every batch already in memory",
            )
        ]
    section.facts += [("Extrapolated", text) for text in replay.extrapolations]
    return section
