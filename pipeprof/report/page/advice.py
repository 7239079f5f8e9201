"""Forecast of a run, ready to be shown: fixes, what-if and trust.

Where a run cannot be predicted from, the sections say so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.harm import warning
from pipeprof.report import command, reading, words
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.page.view import RunView
from pipeprof.report.text.forecast import costs, estimate, rests_on
from pipeprof.simulate.extrapolation import Extrapolation, merged
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.predict import Estimate
from pipeprof.simulate.ranking import Ranked
from pipeprof.simulate.search import HeatMap
from pipeprof.simulate.tuning.tried import scenario_keys
from pipeprof.vocabulary import causes, fixes, owners

TRUSTED: Final = 0.10
"""A replay further than this from what was measured makes gains hints."""


def gain(ranked: Ranked) -> str:
    """Return the speed with the fix over the speed without: `2.9×`, or `+12%` below one and a half."""
    return f"{units.digits(1 + ranked.gain)}×" if ranked.gain >= 0.5 else f"+{units.percent(ranked.gain)}"


def anchored(ranked: Ranked, measured: float | None) -> Estimate:
    """Return the rate with the fix, as a gain over the measured rate: a replay's own base would be another.

    Without a measured rate it is the predicted one.
    """
    rate = ranked.prediction.throughput
    if not measured or not rate.value:
        return rate
    scale = measured * (1 + ranked.gain) / rate.value
    return Estimate(rate.value * scale, rate.low * scale, rate.high * scale)


def from_to(ranked: Ranked, measured: float | None) -> str:
    """Return the rate now and with the fix: `16.8 → 21.2 samples/s`."""
    return f"{_now(measured)}{units.digits(anchored(ranked, measured).value)} samples/s"


def _now(measured: float | None) -> str:
    return f"{units.digits(measured)} → " if measured else ""


def cards(forecast: Forecast, facts: RunView) -> list[dict[str, str]]:
    """Draw the first screen's fixes, the verdict's first."""
    drawn = [
        {
            **card(candidate, _shared(forecast), facts),
            "command": trying(forecast, facts, candidate),
            **_careful(warning_of(forecast, candidate)),
        }
        for candidate in forecast.advice
    ]
    if forecast.choice.ranked is None and facts.fix != fixes.NONE.word:
        drawn.insert(0, {**_unpredicted(facts), **_careful(facts.warning)})
    return drawn


def warning_of(forecast: Forecast, ranked: Ranked) -> str | None:
    """Return the harm that a fix does to this run's training or machine; None where none applies."""
    return warning(ranked.fix.word, forecast.analysis.facts)


def _careful(text: str | None) -> dict[str, str]:
    return {"warning": text} if text else {}


def _unpredicted(facts: RunView) -> dict[str, str]:
    note = "Chosen from where the time went; no gain is predicted for it from this run."
    title = fixes.BY_WORD[facts.fix].label
    drawn = {"gain": "?", "of": "gain not predicted", "title": title, "note": note, "code": ""}
    return {**drawn, "command": trying_unpredicted(facts)}


def trying(forecast: Forecast, facts: RunView, ranked: Ranked) -> str:
    """Return the command that tries a predicted fix on this run; empty where none does."""
    return command.of_fix(
        ranked.fix.word,
        forecast.arguments_of(ranked.fix),
        scenario_keys(ranked.fix),
        facts.meta,
        facts.loader,
        bool(facts.other_loaders),
    )


def trying_unpredicted(facts: RunView) -> str:
    """Return the command that tries the verdict's fix where nothing is predicted of it; empty for none."""
    return command.of_fix(facts.fix, {}, (), facts.meta, facts.loader, bool(facts.other_loaders))


MORE_STEPS: Final = ("too-few-steps", "too-short", "wide-interval")
"""Decisive doubts that a longer run answers."""


def measuring_more(facts: RunView) -> str:
    """Return the command that measures an inconclusive run for long enough; empty where none does."""
    if not facts.inconclusive or facts.detail not in MORE_STEPS:
        return ""
    return command.of_longer(facts.meta, facts.steps, facts.wall_ns or 0)


def how_of(ranked: Ranked, facts: RunView) -> str:
    """Return what to type: the keys of a scenario where one was run, else what to write in the program."""
    is_scenario = facts.meta.kind == "bench"
    return ranked.fix.keys if is_scenario and ranked.fix.keys else ranked.fix.how


def card(ranked: Ranked, shared: Collection[Extrapolation], facts: RunView) -> dict[str, str]:
    """Draw one fix with its predicted gain, what to type, and what it rests on beyond what all `shared`."""
    emulated = bool(facts.emulated)
    rate, prediction = anchored(ranked, facts.throughput), ranked.prediction
    notes = [
        f"{_now(facts.throughput)}{estimate(rate)} samples/s{' with emulated parts' if emulated else ''}, "
        f"stall {units.percent(prediction.stall.value)}; "
        f"then limited by {owners.limit_of(prediction.limit)}.",
        f"Needs {costs(ranked)}." if costs(ranked) else "",
        *(f"{text[:1].upper()}{text[1:]}." for text in rests_on(ranked, shared)),
    ]
    return {
        "gain": gain(ranked),
        "of": f"{'the ' if ranked.gain >= 0.5 else ''}speed, predicted",
        "title": ranked.fix.title[:1].upper() + ranked.fix.title[1:],
        "note": " ".join(note for note in notes if note),
        "code": how_of(ranked, facts),
    }


def _shared(forecast: Forecast) -> tuple[Extrapolation, ...]:
    """Return how all predictions from this run go beyond it."""
    return forecast.base.extrapolations if forecast.base is not None else ()


def hint(forecast: Forecast) -> str:
    """Return how to read the fixes, and a warning where the simulator does not know this run."""
    rough = replay_warning(forecast)
    return f"{reading.FIXES} {rough}." if rough else reading.FIXES


def replay_warning(forecast: Forecast) -> str:
    """Return that predictions are rough estimates, where the replay is far from the run; else empty."""
    gap = forecast.replay_error
    if gap is None or abs(gap) <= TRUSTED:
        return ""
    way = "faster" if gap > 0 else "slower"
    return f"Rough estimates: replayed unchanged, this run is {units.percent(abs(gap))} {way} than measured"


def what_if(forecast: Forecast) -> Section:
    """Return the heat map of workers and prefetch on this storage, and every fix."""
    inconclusive = forecast.analysis.verdict.cause == causes.INCONCLUSIVE.word
    section = Section(
        "whatif",
        "If this holds: what each change would add" if inconclusive else "What if",
        reading.WHAT_IF,
    )
    section.folded = inconclusive
    cells = forecast.heat_map
    if cells is None:
        why = forecast.unpredicted or "this run does not answer for other numbers of workers"
        section.missing = f"No prediction: {' '.join(why.split())}."
        return section
    section.how += " This run is outlined in grey" + (", the advised one in blue." if cells.advised else ".")
    section.charts = [Chart("whatif", charts.heat_map(_cells(cells), _says(cells), "workers", "prefetch"))]
    section.charts[0].table = _map_table(cells)
    rest_on = [text for row in cells.cells for cell in row for text in cell.extrapolations]
    section.facts = [("Extrapolated", text) for text in merged(rest_on)]
    bars = _bars(forecast)
    if bars:
        described = ", ".join(f"{bar['fix']} {bar['text']}" for bar in bars)
        how = reading.GAINS
        section.charts.append(
            Chart(
                "fixes",
                charts.gains(bars, described),
                fixes_table(forecast.fixes, _shared(forecast), _measured(forecast)),
                "What each fix would add",
                how,
            )
        )
    else:
        section.tables = [fixes_table(forecast.fixes, _shared(forecast), _measured(forecast))]
    return section


MOST_BARS: Final = 8


def _bars(forecast: Forecast) -> list[dict[str, Any]]:
    """Return the feasible fixes that gain, the largest first."""
    base = forecast.base
    if base is None or not base.throughput.value:
        return []
    now = base.throughput.value
    bars: list[dict[str, Any]] = []
    for candidate in forecast.fixes:
        if candidate.worthwhile and len(bars) < MOST_BARS:
            rate = candidate.prediction.throughput
            value, low, high = (100 * (each / now - 1) for each in (rate.value, rate.low, rate.high))
            text = f"{gain(candidate)} ({estimate(anchored(candidate, _measured(forecast)))} samples/s)"
            bar = {"fix": candidate.fix.title, "text": text, "colour": words.colour(owners.ACCELERATOR.name)}
            bars.append({**bar, "value": value, "low": low, "high": high})
    return bars


def _cells(heat_map: HeatMap) -> list[dict[str, Any]]:
    boxes = []
    for workers, row in zip(heat_map.workers, heat_map.cells, strict=True):
        for prefetch, cell in zip(heat_map.prefetch, row, strict=True):
            stall = cell.stall.value
            fill = charts.stall_fill(stall)
            here = heat_map.is_current(workers, prefetch)
            there = (workers, prefetch) == heat_map.advised
            boxes.append(
                {
                    "across": workers,
                    "down": prefetch,
                    "text": units.percent(stall).removesuffix("%"),
                    "fill": fill,
                    "ink": words.ink(fill),
                    "outline": "this run" if here else "advised" if there else "none",
                    "note": f"{units.percent(stall)} ({units.interval((cell.stall.low, cell.stall.high))}), "
                    f"{units.digits(cell.throughput.value)} samples/s, predicted",
                }
            )
    return boxes


def _says(heat_map: HeatMap) -> str:
    stalls = [cell.stall.value for row in heat_map.cells for cell in row]
    return f"The predicted stall lies between {units.percent(min(stalls))} and {units.percent(max(stalls))}."


def _map_table(heat_map: HeatMap) -> Table:
    rows = [
        Row([str(workers), *(units.percent(cell.stall.value) for cell in row)])
        for workers, row in zip(heat_map.workers, heat_map.cells, strict=True)
    ]
    return Table("Predicted stall", ["workers", *(f"prefetch {p}" for p in heat_map.prefetch)], rows)


def _measured(forecast: Forecast) -> float | None:
    return forecast.verdict.measured.throughput_samples_per_s


def fixes_table(
    ranked: Sequence[Ranked], shared: Collection[Extrapolation], measured: float | None = None
) -> Table:
    """List every fix, with what each rests on beyond what all `shared`."""
    rows = [
        Row(
            [
                candidate.fix.title,
                units.signed_percent(candidate.gain),
                estimate(anchored(candidate, measured)),
                units.percent(candidate.prediction.stall.value),
                (costs(candidate) or "–") + ("" if candidate.feasible else ", too much here"),
                owners.limit_of(candidate.prediction.limit),
            ],
            how="; ".join((candidate.fix.how, *rests_on(candidate, shared))),
        )
        for candidate in ranked
    ]
    heads = ["fix", "gain", "samples/s (interval)", "stall", "needs", "then limited by"]
    return Table(
        "Every fix that was considered",
        heads,
        rows,
        f"All {len(rows)} fixes that were considered",
        folded=True,
    )


def trust(forecast: Forecast, facts: RunView) -> Section:
    """Draw the replay of the run, unchanged, beside what was measured."""
    section = Section(
        "trust",
        "Can you trust it",
        reading.TRUST,
    )
    replay = forecast.replay
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
    if rough := replay_warning(forecast):
        section.how += f" {rough}."
    section.tables = [Table("Predicted beside measured", ["", "measured", "replayed", "interval"], rows)]
    headroom = forecast.headroom_samples_per_s
    if headroom is not None:
        section.facts = [
            (
                "Headroom",
                f"if loading were free: {estimate(headroom)} samples/s more",
            )
        ]
    section.facts += [("Extrapolated", text) for text in merged(replay.extrapolations)]
    return section
