"""Predictions as text for a terminal: fixes, heat map, what it would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeprof.report import units
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


def answer_lines(prediction: Prediction, base: Prediction | None = None) -> Iterator[str]:
    """One prediction: its three numbers with their intervals, its limit and what it rests on."""
    gain = ""
    if base is not None and base.throughput.value:
        gain = f", {_signed(prediction.throughput.value / base.throughput.value - 1)}"
    low, high = prediction.stall.low, prediction.stall.high
    yield f"Predicted: {estimate(prediction.throughput)} samples/s{gain}"
    yield f"Stall {units.percent(prediction.stall.value)} ({units.interval((low, high))}), " + (
        f"accelerator computing {units.percent(prediction.utilization.value)} of the time"
    )
    yield f"Limited by {limit(prediction.limit)}."
    yield from (f"Extrapolated: {text}." for text in prediction.extrapolations)


def _signed(gain: float) -> str:
    return f"{'+' if gain >= 0 else '−'}{units.percent(abs(gain))}"


def fix_lines(fixes: Sequence[Ranked]) -> Iterator[str]:
    """The fixes as a table, the largest gain first."""
    rows = [("fix", "samples/s (interval)", "gain", "stall", "costs", "then limited by")]
    rows += [
        (
            one.fix.title,
            estimate(one.prediction.throughput),
            _signed(one.gain),
            units.percent(one.prediction.stall.value),
            _costs(one),
            limit(one.prediction.limit),
        )
        for one in fixes
    ]
    yield from table(rows)


def _costs(one: Ranked) -> str:
    fix = one.fix
    ram = f"{units.size(fix.ram_bytes)} RAM" if fix.ram_bytes else "RAM: not observed"
    costs = [] if fix.ram_bytes == 0 else [ram]
    costs += [f"{fix.cores:g} cores"] if fix.cores else []
    return (", ".join(costs) or "–") + ("" if one.feasible else " (too much for this machine)")


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def heat_map_lines(found: HeatMap, current: tuple[int, int]) -> Iterator[str]:
    """Samples/s (stall) by workers and prefetch; the run's own cell in brackets."""
    rows = [("workers", *(f"prefetch {p}" for p in found.prefetch))]
    for count, row in zip(found.workers, found.cells, strict=True):
        cells = []
        for prefetch, cell in zip(found.prefetch, row, strict=True):
            text = f"{units.digits(cell.throughput.value)} ({units.percent(cell.stall.value)})"
            here = count == current[0] and (prefetch == current[1] or count == 0)
            cells.append(f"[{text}]" if here else text)
        rows.append((str(count), *cells))
    yield from table(rows)


def need_lines(needs: Sequence[Need], target: float) -> Iterator[str]:
    """What would bring the stall under the target, one resource at a time."""
    yield f"For a stall under {units.percent(target)}, each alone and everything else as it is:"
    for need in needs:
        unit = f" {need.unit}" if need.unit else ""
        told = "not enough alone" if need.amount is None else f"{need.amount:,.0f}{unit}"
        yield f"  {need.resource}: {told} (now {units.digits(need.present)}{unit})"


def shared_lines(shared: Shared, ranks: int) -> Iterator[str]:
    """What the storage must deliver to machines of `ranks` ranks, and when it sets their pace."""
    yield (
        f"To keep every accelerator busy the storage must deliver {units.byte_rate(shared.bytes_per_s)} in "
        f"{units.digits(shared.requests_per_s)} reads a second."
    )
    each = f"nodes of {units.plural(ranks, 'rank')} each"
    if shared.limits_from_nodes is None:
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
