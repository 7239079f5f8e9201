"""Differences between runs with intervals, so that noise is called noise.

Every figure of a run comes with a 95 % interval from batch means, which respects that steps resemble their
neighbours. The difference of two runs then lies within the root of the summed squares of the half widths:
the runs are independent. Runs that measured other data or another accelerator are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeprof.analyse.answer import Answer
from pipeprof.analyse.interval import batch_means
from pipeprof.analyse.rates import stall_interval, step_bounds, throughput, utilization
from pipeprof.errors import InconclusiveError, PipeprofError
from pipeprof.report import units, words
from pipeprof.report.matrix import flat

Kind = Literal["share", "rate", "time"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run with its 95 % interval; None where it was not observed."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure by its name: how it is written, and whether more of it is better."""

    key: str
    label: str
    kind: Kind
    more_is_better: bool | None

    def text(self, value: float | None) -> str:
        """The value with its unit."""
        if self.kind == "share":
            return units.percent(value)
        return units.sample_rate(value) if self.kind == "rate" else units.duration(value)


MEASURES: Final = (
    Measure("throughput_samples_per_s", "throughput", "rate", True),
    Measure("stall_share", "stall", "share", False),
    Measure("utilization", "utilisation", "share", True),
    Measure("step_ns", "each step", "time", False),
    Measure("wait_ns", "mean wait", "time", False),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """`other` less `base` of one measure, with its interval."""

    measure: Measure
    base: Figure
    other: Figure
    value: float | None
    low: float | None
    high: float | None

    @property
    def relative(self) -> float | None:
        """The difference as a share of the base."""
        return self.value / self.base.value if self.value is not None and self.base.value else None

    @property
    def beyond_noise(self) -> bool | None:
        """The interval leaves out 0; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0

    @property
    def says(self) -> str:
        """The difference in words."""
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
    """One run against the base."""

    base: str
    other: str
    differences: tuple[Difference, ...]
    owners: tuple[Difference, ...]
    settings: tuple[tuple[str, str, str], ...]
    """(key, base's value, other's value) of every knob that differs."""
    unlike: tuple[str, ...]
    """Why the two should not be compared, where they were all the same."""
    emulated: tuple[str, ...]


def compare(answers: Sequence[Answer], force: bool = False) -> list[Compared]:
    """Compare each run with the first.

    Raises `InconclusiveError` where a run has no measured step, `PipeprofError` where the runs measured other
    data or another accelerator, unless forced.
    """
    if len(answers) < 2:
        raise PipeprofError("one run alone cannot be compared", "give two runs or more")
    for answer in answers:
        if answer.attribution is None:
            raise InconclusiveError(f"{answer.run.directory} has no measured step", "run it longer")
    base = answers[0]
    pairs = []
    for other in answers[1:]:
        unlike = tuple(differences_in_kind(base.run.meta, other.run.meta))
        if unlike and not force:
            raise PipeprofError(
                f"{base.run.directory} and {other.run.directory} cannot be compared: {'; '.join(unlike)}",
                "compare them all the same with --force",
            )
        pairs.append(_pair(base, other, unlike))
    return pairs


def differences_in_kind(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What makes two runs answers to different questions: data, accelerator."""
    found = []
    for part, keys in (
        ("data", ("format", "samples", "mean_bytes", "path")),
        ("accelerator", ("kind", "name")),
    ):
        one, two = base.get(part) or {}, other.get(part) or {}
        for key in keys:
            if one.get(key) != two.get(key):
                found.append(f"{part} {key} {_said(one.get(key))} against {_said(two.get(key))}")
    return found


def _said(value: Any) -> str:
    return units.NOT_OBSERVED if value is None else str(value)


def _pair(base: Answer, other: Answer, unlike: tuple[str, ...]) -> Compared:
    first, second = figures(base), figures(other)
    owned_first, owned_second = owner_figures(base), owner_figures(other)
    names = sorted({*owned_first, *owned_second}, key=words.rank)
    owners = [Measure(name, words.owner(name).label, "time", None) for name in names]
    nothing = Figure(0.0, 0.0, 0.0)
    emulated = {str(part) for one in (base, other) for part in one.run.meta.get("emulated") or ()}
    return Compared(
        _name(base),
        _name(other),
        tuple(difference(m, first[m.key], second[m.key]) for m in MEASURES),
        tuple(
            difference(m, owned_first.get(m.key, nothing), owned_second.get(m.key, nothing)) for m in owners
        ),
        tuple(_settings(base.run.meta, other.run.meta)),
        unlike,
        tuple(sorted(emulated)),
    )


def _name(answer: Answer) -> str:
    return str(answer.run.directory)


def difference(measure: Measure, base: Figure, other: Figure) -> Difference:
    """`other` less `base`; an interval only where both have one."""
    if base.value is None or other.value is None:
        return Difference(measure, base, other, None, None, None)
    value = other.value - base.value
    if base.half is None or other.half is None:
        return Difference(measure, base, other, value, None, None)
    half = math.hypot(base.half, other.half)
    return Difference(measure, base, other, value, value - half, value + half)


def figures(answer: Answer) -> dict[str, Figure]:
    """The figures of `MEASURES` for one run."""
    found = answer.attribution
    if found is None:
        return {measure.key: Figure(None) for measure in MEASURES}
    device = answer.run.meta.get("accelerator") or {}
    rate, rate_interval = throughput(found)
    used, _ = utilization(found, device.get("kind"), bool(device.get("emulated")))
    bounds = step_bounds(found).astype(np.float64)
    steps = np.diff(bounds)
    t = found.timeline
    waits = (t.take_ns - t.request_ns)[~t.warmup].astype(np.float64)
    ones = np.ones(len(steps))
    return {
        "throughput_samples_per_s": _figure(rate, rate_interval),
        "stall_share": _figure(answer.verdict.stall_share, stall_interval(found)),
        "utilization": _figure(used, batch_means(_owned(answer, ("accelerator",)), steps)),
        "step_ns": _figure(float(steps.mean()), batch_means(steps, ones)),
        "wait_ns": _figure(float(waits.mean()), batch_means(waits, np.ones(len(waits)))),
    }


def owner_figures(answer: Answer) -> dict[str, Figure]:
    """Ledger time of each owner per step, with its interval."""
    ledger = answer.ledger
    if ledger is None:
        return {}
    found: dict[str, Figure] = {}
    for owner, ns in ledger.ledger_ns.items():
        if ns:
            each = _owned(answer, (owner,))
            found[owner] = _figure(float(each.mean()), batch_means(each, np.ones(len(each))))
    return found


def _figure(value: float | None, interval: tuple[float, float] | None) -> Figure:
    return Figure(value, *interval) if interval is not None else Figure(value)


def _owned(answer: Answer, owners: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ns of the accelerator's day that belong to `owners`, one value a measured step."""
    found = answer.attribution
    assert found is not None
    day = found.day
    mine = np.array(
        [name.partition(":")[0] in owners or name in owners for name in day.owners], dtype=np.float64
    )
    rate = np.append(mine, day.mixes @ mine.astype(np.float32))[day.rows]
    spent = np.append(0.0, np.cumsum(np.diff(day.bounds) * rate))
    return np.diff(np.interp(step_bounds(found), day.bounds, spent))


_IGNORED: Final = ("name", "about", "expect", "cell.", "run.")


def _settings(base: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    one, two = (flat(_knobs(meta)) for meta in (base, other))
    keys = [key for key in dict.fromkeys((*one, *two)) if not key.startswith(_IGNORED)]
    return [(k, _said(one.get(k)), _said(two.get(k))) for k in keys if str(one.get(k)) != str(two.get(k))]


def _knobs(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    scenario = meta.get("scenario") or {}
    if scenario.get("resolved"):
        return dict(scenario["resolved"])
    loaders, storage = meta.get("loaders") or [{}], meta.get("storage") or {}
    return {"loader": loaders[0], "storage": {key: storage.get(key) for key in ("tier", "name", "cache")}}
