"""Predictions as text for a terminal: the answers of `pipeprof predict`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from pipeprof import units
from pipeprof.report.text.footnotes import WIDTH, Footnotes
from pipeprof.report.text.table import TextTable
from pipeprof.report.wording.advice import (
    basis,
    costs,
    estimate,
    headroom_text,
)
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.predict import Prediction
from pipeprof.simulate.questions import Answer, Overview
from pipeprof.simulate.ranking import Calibration, Choice, Ranked
from pipeprof.simulate.search import MOST_NODES, HeatMap, Need, Shared
from pipeprof.vocabulary import fixes
from pipeprof.vocabulary.owners import limit_of


def answer_text(answer: Answer) -> Iterator[str]:
    """Yield the lines of the answer to one question."""
    yield from demand_lines(answer.demands)
    yield replayed_line(answer.base, answer.demands)
    yield from answer_lines(answer.prediction, answer.calibration, answer.demands.notes)
    if answer.shared is not None:
        yield from shared_lines(answer.shared, answer.knobs.ranks)


def overview_text(overview: Overview) -> Iterator[str]:
    """Yield the lines of what would fix a run, by how much, and what it would take.

    Rates are gains over the measured one, as the report has them; if it is not known, the replay's own.
    """
    known, knobs, replayed = overview.base.extrapolations, overview.demands.measured, overview.base
    yield from demand_lines(overview.demands)
    yield replayed_line(replayed, overview.demands)
    yield from (f"Extrapolated: {text}." for text in known if text not in overview.demands.notes)
    yield f"Headroom: {headroom_text(overview.best_of_loaders, overview.calibration)}."
    yield advice_line(overview.choice)
    yield ""
    yield from fix_lines(overview.fixes, known)
    yield ""
    yield f"Samples/s (stall) on {knobs.storage.name}, this run in brackets:"
    yield from heat_map_lines(overview.heat_map, known, overview.calibration)
    yield ""
    yield from need_lines(overview.needs, overview.target_stall, known)


def replayed_line(base: Prediction, demands: Demands) -> str:
    """Return what the replay of the run, unchanged, comes to: how well the predictor knows it."""
    what = "Unchanged, without pipeprof" if demands.taken_off_ns else "Replayed unchanged"
    stall = f"{units.percent(base.stall.value)} ({units.interval((base.stall.low, base.stall.high))})"
    limited = limit_of(base.limit)
    return f"{what}: {estimate(base.throughput)} samples/s, stall {stall}, limited by {limited}."


def advice_line(choice: Choice) -> str:
    """Return the verdict's fix in one line."""
    if choice.ranked is not None:
        return f"Advice: {choice.ranked.fix.title} ({choice.ranked.fix.how})."
    if choice.word == fixes.NONE.word:
        return "Advice: none; nothing bears on the cause and is predicted to gain anything."
    return f"Advice: {fixes.BY_WORD[choice.word].label}; no gain is predicted for it from this run."


def answer_lines(
    prediction: Prediction,
    calibration: Calibration,
    known: Collection[Extrapolation] = (),
) -> Iterator[str]:
    """Yield one prediction: its three numbers with their intervals, its limit and what it rests on, except
    for what is `known` before."""
    gain = f", {units.signed_percent(calibration.gain(prediction))}" if calibration.base.rate else ""
    low, high = prediction.stall.low, prediction.stall.high
    yield f"Predicted: {estimate(calibration.rate(prediction))} samples/s{gain}"
    yield f"Stall {units.percent(prediction.stall.value)} ({units.interval((low, high))}), " + (
        f"accelerator computing {units.percent(prediction.utilization.value)} of the time"
    )
    yield f"Limited by {limit_of(prediction.limit)}."
    yield from (f"Extrapolated: {text}." for text in prediction.extrapolations if text not in known)


def fix_lines(fixes: Sequence[Ranked], known: Collection[Extrapolation] = ()) -> Iterator[str]:
    """Yield the fixes as a table, largest gain first, and what each rests on beyond what is `known`."""
    notes = Footnotes(known)
    heads = ("fix", "samples/s (interval)", "gain", "stall", "costs", "then limited by")
    table = _table(heads, wrapped=(0, 4, 5))
    for candidate in fixes:
        table.row(
            notes.mark(candidate.fix.title, basis(candidate)),
            estimate(candidate.rate),
            units.signed_percent(candidate.gain),
            units.percent(candidate.prediction.stall.value),
            notes.mark(costs(candidate) or "–", () if candidate.feasible else (TOO_LARGE,)),
            limit_of(candidate.prediction.limit),
        )
    yield from table.plain()
    yield from notes.lines()


TOO_LARGE: Final = Extrapolation("more memory than this machine has")


def _table(heads: Sequence[str], wrapped: Collection[int] = ()) -> TextTable:
    return TextTable(heads, WIDTH, wrapped=wrapped, rule=True)


def heat_map_lines(
    heat_map: HeatMap, known: Collection[Extrapolation] = (), calibration: Calibration | None = None
) -> Iterator[str]:
    """Yield samples/s (stall) by workers and prefetch; the run's own cell in brackets."""
    notes = Footnotes(known)
    table = _table(("workers", *(f"prefetch {p}" for p in heat_map.prefetch)))
    for count, row in zip(heat_map.workers, heat_map.cells, strict=True):
        cells = []
        for prefetch, cell in zip(heat_map.prefetch, row, strict=True):
            rate = cell.throughput if calibration is None else calibration.rate(cell)
            text = f"{units.digits(rate.value)} ({units.percent(cell.stall.value)})"
            here = heat_map.is_current(count, prefetch)
            cells.append(f"[{text}]" if here else text)
        rest_on = dict.fromkeys(text for cell in row for text in cell.extrapolations)
        table.row(notes.mark(str(count), rest_on), *cells)
    yield from table.plain()
    yield from _widest(heat_map)
    yield from notes.lines()


def _widest(heat_map: HeatMap) -> Iterator[str]:
    """Yield how sure the cells are: the interval of the least sure one."""
    rates = [cell.throughput for row in heat_map.cells for cell in row if cell.throughput.value]
    if rates:
        widest = max(rates, key=lambda rate: (rate.high - rate.low) / rate.value)
        low, high = (units.signed_percent(end / widest.value - 1) for end in (widest.low, widest.high))
        yield f"Intervals reach from {low} to {high} at the widest."


def need_lines(needs: Sequence[Need], target: float, known: Collection[Extrapolation] = ()) -> Iterator[str]:
    """Yield the changes that would bring the stall under the target, one resource at a time."""
    notes = Footnotes(known)
    yield f"For a stall under {units.percent(target)}, each alone and everything else as it is:"
    for need in needs:
        unit = f" {need.unit}" if need.unit else ""
        present = units.digits(need.present) if unit else units.amount(need.present)
        now = f"now {present}{unit}"
        if need.amount is None or need.prediction is None:
            yield f"  {need.resource}: not enough alone ({now})"
            continue
        stall = need.prediction.stall
        shares = f"{units.percent(stall.value)} ({units.interval((stall.low, stall.high))})"
        text = f"  {need.resource}: {units.count(need.amount)}{unit} ({now}): stall {shares}"
        yield notes.mark(text, need.prediction.extrapolations)
    yield from notes.lines()


def shared_lines(shared: Shared, ranks: int) -> Iterator[str]:
    """Yield the storage's demand for machines of `ranks` ranks, and when it sets their pace."""
    reads = f"{units.digits(shared.requests_per_s)} reads a second"
    if shared.bytes_per_s is None:
        must = f"serve {reads}; their bytes were not observed."
    else:
        must = f"deliver {units.byte_rate(shared.bytes_per_s)} in {reads}."
    yield f"To keep every accelerator busy the storage must {must}"
    each = f"nodes of {units.plural(ranks, 'rank')} each"
    if not shared.limit_known:
        yield "What it can deliver is not known: it has no cost model (--set storage.tier, storage.profile)."
    elif shared.limits_from_nodes is None:
        yield f"It would not be the bottleneck of {MOST_NODES} {each} either."
    else:
        yield f"It is the bottleneck from {shared.limits_from_nodes} {each} on (tried: powers of two)."


def demand_lines(demands: Demands) -> Iterator[str]:
    """Yield the demand that the predictions rest on."""
    knobs = demands.measured
    yield (
        f"From {len(demands.measured_rows)} batches of {knobs.batch_size}: "
        f"{knobs.workers} workers, prefetch {knobs.prefetch}, {units.cores(knobs.cores)}, "
        f"{knobs.storage.name}{' (emulated)' * demands.place.emulated}."
    )
    yield from (f"Note: {note}." for note in demands.notes)
