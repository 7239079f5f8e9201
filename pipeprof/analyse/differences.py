"""Differences between runs, with intervals, so that noise is recognised as noise.

Every figure of a run comes with a 95% interval from batch means, which respects that steps resemble their
neighbours. The difference of two runs then lies within the root of the summed squares of the half widths: the
runs are independent. Rates and times are compared by their ratio, on a logarithmic scale (the delta method),
so that no interval goes below -100%. Runs that measured other data or another accelerator are not compared,
and a note says if other programs took different parts of the cores during them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.rates import interval_of, mean_interval, stall_interval, throughput, utilization
from pipeprof.analyse.resources.cores import CoreSpeeds, core_speeds
from pipeprof.errors import InconclusiveError, PipeprofError
from pipeprof.record.decode import encode, flat
from pipeprof.record.meta import RunMeta
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.arguments import ARGUMENT_OF, KEY_OF
from pipeprof.vocabulary.utilization import UtilizationKind

Kind = Literal["share", "rate", "time"]


@dataclass(frozen=True, slots=True)
class Figure:
    """Number of a run with its 95% interval; None if it was not observed."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Return half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure by its name, with how it is written and whether more of it is better."""

    key: str
    label: str
    kind: Kind
    more_is_better: bool | None

    def text(self, value: float | None) -> str:
        """Write the value with its unit."""
        if self.kind == "share":
            return units.percent(value)
        return units.sample_rate(value) if self.kind == "rate" else units.duration(value)


MAKING_CPU: Final = Measure("making_cpu_ns", "CPU of making a batch", "time", False)
MEASURES: Final = (
    Measure("throughput_samples_per_s", "throughput", "rate", True),
    Measure("stall_share", "waiting for data", "share", False),
    Measure("utilization", "utilisation", "share", True),
    Measure("step_ns", "each step", "time", False),
    Measure("wait_ns", "mean wait in next()", "time", False),
    MAKING_CPU,
)
MOSTLY_SEEN: Final = 0.9
"""Share of the batches whose CPU time has to be known, that its mean may stand for all of them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one measure, `other` less `base`, with its interval."""

    measure: Measure
    base: Figure
    other: Figure
    value: float | None
    low: float | None
    high: float | None

    @property
    def relative(self) -> float | None:
        """Return the difference as a share of the base."""
        return self.value / self.base.value if self.value is not None and self.base.value else None

    @property
    def unit(self) -> float:
        """Return the value that differences are shown as parts of: the base's, or 1 for a share."""
        return 1.0 if self.measure.kind == "share" else self.base.value or 1.0

    @property
    def shown_interval(self) -> tuple[float, float] | None:
        """Return the interval in parts of `unit`; None if there is none."""
        if self.low is None or self.high is None:
            return None
        return self.low / self.unit, self.high / self.unit

    @property
    def beyond_noise(self) -> bool | None:
        """Return True if the interval leaves out 0; None if there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0

    @property
    def says(self) -> str:
        """Return the difference in words."""
        if self.value is None:
            return units.NOT_OBSERVED
        if self.beyond_noise is None:
            return "too few steps to tell from noise"
        if not self.beyond_noise:
            return "no difference beyond noise"
        if self.measure.more_is_better is None:
            return "more" if self.value > 0 else "less"
        return "better" if (self.value > 0) == self.measure.more_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Compared:
    """A run and its differences from the base."""

    base: str
    other: str
    differences: tuple[Difference, ...]
    owners: tuple[Difference, ...]
    settings: tuple[tuple[str, str, str], ...]
    """(key, base's value, other's value) of every knob that differs."""
    unlike: tuple[str, ...]
    """Reasons against comparing the two, if they were compared all the same."""
    unfair: tuple[str, ...]
    """Other differences of the machine meanwhile, which may be all that the figures show."""
    emulated: tuple[str, ...]
    cores: CoreSpeeds | None = None
    """Speed of the cores relative to the base's; None if either run did not measure it."""
    utilization_kind: UtilizationKind | None = None
    """Kind of both runs' utilisation; None if they differ."""


def compare(analyses: Sequence[Analysis], force: bool = False) -> list[Compared]:
    """Compare each run with the first.

    Raises `InconclusiveError` if a run has no measured step, `PipeprofError` if the runs measured other data
    or another accelerator, unless forced.
    """
    if len(analyses) < 2:
        raise PipeprofError("one run alone cannot be compared", "give two runs or more")
    for analysis in analyses:
        if analysis.attribution is None:
            raise InconclusiveError(f"{analysis.run.directory} has no measured step", "run it longer")
    base = analyses[0]
    pairs = []
    for other in analyses[1:]:
        unlike = tuple(differences_in_kind(base.run.meta, other.run.meta))
        if unlike and not force:
            raise PipeprofError(
                f"{base.run.directory} and {other.run.directory} cannot be compared: {'; '.join(unlike)}",
                "compare them all the same with --force",
            )
        pairs.append(_pair(base, other, unlike))
    return pairs


@dataclass(frozen=True, slots=True)
class Repeated:
    """Two runs that were repeated alternately, pair after pair."""

    rates: tuple[tuple[float, float], ...]
    """Samples a second of base and other in each pair."""
    relative: float
    """Geometric mean of the pairs' ratios, less 1."""
    low: float
    high: float
    """Ends of its 95% interval, by Student's t on the logarithms."""
    unfair: tuple[str, ...]
    """Differences of the machine within pairs, each with the pair's number."""

    @property
    def is_fair(self) -> bool:
        """Return False if the machine differed within more than half of the pairs."""
        return 2 * len(self.unfair) <= len(self.rates)


def repeated(pairs: Sequence[tuple[Analysis, Analysis]]) -> Repeated:
    """Compare the throughput of pairs of runs, 2 to 10 of them.

    Raises `InconclusiveError` if a run has no measured rate.
    """
    rates, unfair = [], []
    for number, (base, other) in enumerate(pairs, 1):
        one, two = (each.verdict.measured.throughput_samples_per_s for each in (base, other))
        if not one or not two:
            missing = other if one else base
            raise InconclusiveError(f"{missing.run.directory} has no measured rate", "run it longer")
        rates.append((one, two))
        unfair += [f"pair {number}: {why}" for why in _unfair(base, other)]
    logs = mean_interval([math.log(two / one) for one, two in rates])
    relative, low, high = (math.expm1(each) for each in logs)
    return Repeated(tuple(rates), relative, low, high, tuple(unfair))


def differences_in_kind(base: RunMeta, other: RunMeta) -> list[str]:
    """List what makes two runs answers to different questions: data, accelerator."""
    left, right = _kind(base), _kind(other)
    return [
        f"{key} {_said(left[key])} against {_said(right[key])}" for key in left if left[key] != right[key]
    ]


def _kind(meta: RunMeta) -> dict[str, object]:
    data, device = meta.data, meta.accelerator
    return {
        "data format": data.format,
        "data samples": data.samples,
        "data mean_bytes": data.mean_bytes,
        "data path": data.path,
        "accelerator kind": device.kind,
        "accelerator name": device.name,
    }


def _said(value: Any) -> str:
    return units.NOT_OBSERVED if value is None else str(value)


def _pair(base: Analysis, other: Analysis, unlike: tuple[str, ...]) -> Compared:
    first, second = figures(base), figures(other)
    owned_first, owned_second = owner_figures(base), owner_figures(other)
    names = sorted({*owned_first, *owned_second}, key=owners.order_of)
    measures = [Measure(name, owners.label_of(name), "time", None) for name in names]
    nothing = Figure(0.0, 0.0, 0.0)
    emulated = {part for each in (base, other) for part in each.run.meta.emulated}
    return Compared(
        _name(base),
        _name(other),
        tuple(difference(m, first[m.key], second[m.key]) for m in MEASURES),
        tuple(
            difference(m, owned_first.get(m.key, nothing), owned_second.get(m.key, nothing)) for m in measures
        ),
        tuple(_settings(base, other)),
        unlike,
        tuple(_unfair(base, other)),
        tuple(sorted(emulated)),
        cores_between(base, other),
        _alike(*(each.verdict.measured.utilization_kind for each in (base, other))),
    )


Word = TypeVar("Word", bound=str)


def _alike(first: Word | None, second: Word | None) -> Word | None:
    return first if first == second else None


def cores_between(base: Analysis, other: Analysis) -> CoreSpeeds | None:
    """Compare the speed of the cores while two runs were taken; None if it was not measured."""
    if base.facts is None or other.facts is None or base.ledger is None or other.ledger is None:
        return None
    spins = base.facts.spin_ns, other.facts.spin_ns
    speeds = core_speeds(*spins, base.ledger.path_ns, other.ledger.path_ns)
    if speeds is None or base.attribution is None or other.attribution is None:
        return speeds
    cpu = difference(MAKING_CPU, *(_cpu_of_making(each) for each in (base.attribution, other.attribution)))
    return speeds.checked_by(cpu.relative, cpu.shown_interval)


UNLIKE_SHARE: Final = 0.1
"""Part of the usable cores by which what other programs took may differ between runs that are compared."""


def _unfair(base: Analysis, other: Analysis) -> Iterator[str]:
    """Yield what differed on the machine while the two runs were taken, as far as both record it."""
    left, right = base.facts, other.facts
    if left is None or right is None or left.other_cores is None or right.other_cores is None:
        return
    cores = min(left.cores or math.inf, right.cores or math.inf)
    if abs(left.other_cores - right.other_cores) > UNLIKE_SHARE * cores:
        first, second = (units.digits(facts.other_cores) for facts in (left, right))
        names = list(dict.fromkeys((*right.programs, *left.programs)))[:2]
        busiest = f"; the busiest: {' and '.join(names)}" if names else ""
        yield f"other programs kept {first} cores busy in the first run, {second} in the second{busiest}"


def _relative_half(figure: Figure) -> float | None:
    """Return the half width of a figure as a share of it; None without an interval or a positive value."""
    if figure.half is None or not figure.value or figure.value < 0:
        return None
    return figure.half / figure.value


def _name(analysis: Analysis) -> str:
    return str(analysis.run.directory)


WIDEST: Final = 100.0
"""Half widths, as shares of their figures, from which a ratio says nothing, nor can be computed."""


def difference(measure: Measure, base: Figure, other: Figure) -> Difference:
    """Return `other` less `base`, with an interval only if both have one."""
    if base.value is None or other.value is None:
        return Difference(measure, base, other, None, None, None)
    value = other.value - base.value
    if base.half is None or other.half is None:
        return Difference(measure, base, other, value, None, None)
    first, second = _relative_half(base), _relative_half(other)
    if measure.kind != "share" and first is not None and second is not None and first + second < WIDEST:
        half, ratio = math.hypot(first, second), other.value / base.value
        low, high = (base.value * (ratio * math.exp(sign * half) - 1) for sign in (-1, 1))
        return Difference(measure, base, other, value, low, high)
    half = math.hypot(base.half, other.half)
    least = -math.inf if measure.kind == "share" else -base.value  # no time and no rate falls below 0
    return Difference(measure, base, other, value, max(least, value - half), value + half)


def figures(analysis: Analysis) -> dict[str, Figure]:
    """Return the figures of `MEASURES` for one run."""
    attribution = analysis.attribution
    if attribution is None:
        return {measure.key: Figure(None) for measure in MEASURES}
    device = analysis.run.meta.accelerator
    rate, rate_interval = throughput(attribution)
    used, _ = utilization(attribution, device)
    steps = attribution.step_lengths
    waits = attribution.wait_ns[attribution.timeline.measured].astype(np.float64)
    ones = np.ones(len(steps))
    return {
        "throughput_samples_per_s": _figure(rate, rate_interval),
        "stall_share": _figure(analysis.verdict.stall_share, stall_interval(attribution)),
        "utilization": _figure(
            used, interval_of(attribution, _owned(attribution, owners.ACCELERATOR.name), steps)
        ),
        "step_ns": _figure(float(steps.mean()), interval_of(attribution, steps, ones)),
        "wait_ns": _figure(float(waits.mean()), interval_of(attribution, waits, ones)),
        MAKING_CPU.key: _cpu_of_making(attribution),
    }


def _cpu_of_making(attribution: Attribution) -> Figure:
    """Return the CPU time of making a batch: the same code on the same samples takes more of it on a machine
    that is slower in any way, its memory and caches included."""
    cpu_ns = attribution.counters.cpu[attribution.timeline.measured].astype(np.float64)
    seen = ~np.isnan(cpu_ns)
    if not seen.any() or seen.mean() < MOSTLY_SEEN:
        return Figure(None)
    mean = float(cpu_ns[seen].mean())
    cpu_ns[~seen] = mean
    return _figure(mean, interval_of(attribution, cpu_ns, np.ones(len(cpu_ns))))


def owner_figures(analysis: Analysis) -> dict[str, Figure]:
    """Return the ledger time of each owner per step, with its interval."""
    attribution = analysis.attribution
    if attribution is None:
        return {}
    by_owner: dict[str, Figure] = {}
    for owner, ns in attribution.whole.ledger_ns.items():
        if ns:
            each = _owned(attribution, owner)
            interval = interval_of(attribution, each, np.ones(len(each)))
            by_owner[owner] = _figure(float(each.mean()), interval)
    return by_owner


def _figure(value: float | None, interval: tuple[float, float] | None) -> Figure:
    return Figure(value, *interval) if interval is not None else Figure(value)


def _owned(attribution: Attribution, owner: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the ns of the accelerator's day that belong to `owner`, one value a measured step."""
    return attribution.day.between(lambda name: owners.merged(name) == owner, attribution.step_bounds)


_PLACE: Final = ("loader.file", "loader.line", "loader.column", "loader.in_library", "loader.changed")
"""Facts about where a loader is constructed in the source, and who gave it its arguments."""
_OF_WORKERS: Final = (KEY_OF["prefetch_factor"], KEY_OF["multiprocessing_context"])
"""Knobs that a loader without workers does not have."""
_IGNORED: Final = ("name", "about", "expect", "cell.", "run.", *_PLACE)


def _settings(base: Analysis, other: Analysis) -> list[tuple[str, str, str]]:
    left, right = (flat(_knobs(analysis)) for analysis in (base, other))
    keys = [key for key in dict.fromkeys((*left, *right)) if not key.startswith(_IGNORED)]
    is_scenario = bool(base.run.meta.scenario.resolved or other.run.meta.scenario.resolved)
    return [
        (k if is_scenario else _argument(k), _setting(k, left), _setting(k, right))
        for k in keys
        if str(left.get(k)) != str(right.get(k))
    ]


def _setting(key: str, knobs: Mapping[str, Any]) -> str:
    """Return what a knob was set to; of those that only workers have, none if there are none."""
    value = knobs.get(key)
    if value is None and key in _OF_WORKERS and knobs.get(KEY_OF["num_workers"]) == 0:
        return "none"
    return _said(value)


def _argument(key: str) -> str:
    """Return the DataLoader argument for a key of the loader's section; other keys unchanged."""
    part, _, knob = key.partition(".")
    return ARGUMENT_OF.get(knob, key) if part == "loader" else key


def _knobs(analysis: Analysis) -> Mapping[str, Any]:
    meta, loader = analysis.run.meta, analysis.verdict.measured.loader
    if meta.scenario.resolved:
        return meta.scenario.resolved
    storage = meta.storage
    return {
        "loader": encode(meta.loader(loader.id)) if loader else {},
        "storage": {"tier": storage.tier, "name": storage.name, "cache": storage.cache},
    }
