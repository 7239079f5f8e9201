"""Predictions as text for a terminal: fixes, heat map, what it would take."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

from pipeprof.report import units
from pipeprof.report.footnotes import WIDTH, Footnotes
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.fixes import Ranked
from pipeprof.simulate.predict import Estimate, Prediction
from pipeprof.simulate.search import MOST_NODES, HeatMap, Need, Shared

_LIMITS = {
    "accelerator": "the accelerator",
    "storage": "the storage",
    "main": "the loop's Python",
    "h2d": "the copy to the device",
    "cpu-contention": "the cores",
    "startup": "starting workers",
    "transfer": "handing batches over",
    "pin": "the pin thread",
    "blocked": "locks and sleeps",
    "collective": "waiting for the other ranks",
}


def limit(owner: str) -> str:
    """The owner of most of the critical path, in words: `the CPU: decode`."""
    return _LIMITS.get(owner) or f"the CPU: {owner.removeprefix('transform:').removeprefix('stage:')}"


def estimate(value: Estimate) -> str:
    """`420 (405–436)`."""
    return f"{units.digits(value.value)} ({units.digits(value.low)}–{units.digits(value.high)})"


def answer_lines(
    prediction: Prediction, base: Prediction | None = None, told: Collection[str] = ()
) -> Iterator[str]:
    """One prediction: its three numbers with their intervals, its limit and what it rests on but for what was
    `told` before."""
    gain = ""
    if base is not None and base.throughput.value:
        gain = f", {_signed(prediction.throughput.value / base.throughput.value - 1)}"
    low, high = prediction.stall.low, prediction.stall.high
    yield f"Predicted: {estimate(prediction.throughput)} samples/s{gain}"
    yield f"Stall {units.percent(prediction.stall.value)} ({units.interval((low, high))}), " + (
        f"accelerator computing {units.percent(prediction.utilization.value)} of the time"
    )
    yield f"Limited by {limit(prediction.limit)}."
    yield from (f"Extrapolated: {text}." for text in prediction.extrapolations if text not in told)


def _signed(gain: float) -> str:
    if abs(gain) < 0.0005:
        return "0 %"
    return f"{'+' if gain >= 0 else '−'}{units.percent(abs(gain))}"


def fix_lines(fixes: Sequence[Ranked], told: Collection[str] = ()) -> Iterator[str]:
    """The fixes as a table, the largest gain first, and what each rests on beyond what was `told` before."""
    notes = Footnotes(told)
    rows = [("fix", "samples/s (interval)", "gain", "stall", "costs", "then limited by")]
    rows += [
        (
            notes.mark(one.fix.title, basis(one)),
            estimate(one.prediction.throughput),
            _signed(one.gain),
            units.percent(one.prediction.stall.value),
            notes.mark(_costs(one), () if one.feasible else ("more memory than this machine has",)),
            limit(one.prediction.limit),
        )
        for one in fixes
    ]
    yield from table(rows, wrapped=(0, 4, 5))
    yield from notes.lines()


def basis(one: Ranked) -> tuple[str, ...]:
    """What is assumed of a fix, and how far its prediction is from what was measured."""
    assumed = (f"assumed: {one.fix.assumption}",) if one.fix.assumption else ()
    return (*assumed, *one.prediction.extrapolations)


def _costs(one: Ranked) -> str:
    fix = one.fix
    ram = f"{units.size(fix.ram_bytes)} RAM" if fix.ram_bytes else "RAM: not observed"
    costs = [] if fix.ram_bytes == 0 else [ram]
    costs += [f"{fix.cores:g} core{'s' * (fix.cores != 1)}"] if fix.cores else []
    return ", ".join(costs) or "–"


def table(rows: Sequence[Sequence[str]], wrapped: Collection[int] = ()) -> Iterator[str]:
    """Columns as wide as their widest cell; the first row is the head.

    Where that is wider than a terminal the cells of the columns `wrapped` take more than one line.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while wrapped and sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[max(wrapped, key=widths.__getitem__)] -= 1
    for number, row in enumerate(rows):
        cells = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            yield "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def _wrap(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_on_hyphens=False) or [""]


def heat_map_lines(found: HeatMap, current: tuple[int, int], told: Collection[str] = ()) -> Iterator[str]:
    """Samples/s (stall) by workers and prefetch; the run's own cell in brackets."""
    notes = Footnotes(told)
    rows = [("workers", *(f"prefetch {p}" for p in found.prefetch))]
    for count, row in zip(found.workers, found.cells, strict=True):
        cells = []
        for prefetch, cell in zip(found.prefetch, row, strict=True):
            text = f"{units.digits(cell.throughput.value)} ({units.percent(cell.stall.value)})"
            here = count == current[0] and (prefetch == current[1] or count == 0)
            cells.append(f"[{text}]" if here else text)
        rest_on = dict.fromkeys(text for cell in row for text in cell.extrapolations)
        rows.append((notes.mark(str(count), rest_on), *cells))
    yield from table(rows)
    yield from _widest(found)
    yield from notes.lines()


def _widest(found: HeatMap) -> Iterator[str]:
    """How sure the cells are: the interval of the least sure one."""
    rates = [cell.throughput for row in found.cells for cell in row if cell.throughput.value]
    if rates:
        widest = max(rates, key=lambda rate: (rate.high - rate.low) / rate.value)
        low, high = (_signed(end / widest.value - 1) for end in (widest.low, widest.high))
        yield f"Intervals reach from {low} to {high} at the widest."


def need_lines(needs: Sequence[Need], target: float, told: Collection[str] = ()) -> Iterator[str]:
    """What would bring the stall under the target, one resource at a time."""
    notes = Footnotes(told)
    yield f"For a stall under {units.percent(target)}, each alone and everything else as it is:"
    for need in needs:
        unit = f" {need.unit}" if need.unit else ""
        present = units.digits(need.present) if unit else f"{need.present:g}"
        now = f"now {present}{unit}"
        if need.amount is None or need.prediction is None:
            yield f"  {need.resource}: not enough alone ({now})"
            continue
        stall = need.prediction.stall
        text = (
            f"  {need.resource}: {need.amount:,.0f}{unit} ({now}): stall {units.percent(stall.value)} "
            f"({units.interval((stall.low, stall.high))})"
        )
        yield notes.mark(text, need.prediction.extrapolations)
    yield from notes.lines()


def shared_lines(shared: Shared, ranks: int) -> Iterator[str]:
    """What the storage must deliver to machines of `ranks` ranks, and when it sets their pace."""
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
    """What the predictions rest on."""
    knobs = demands.measured
    emulated = any(name.startswith("storage") for name in demands.emulated)
    yield (
        f"From {len(demands.measured_rows)} batches of {knobs.batch_size}: "
        f"{knobs.workers} workers, prefetch {knobs.prefetch}, {knobs.cores:g} cores, "
        f"{knobs.storage.name}{' (emulated)' * emulated}."
    )
    yield from (f"Note: {note}." for note in demands.notes)
