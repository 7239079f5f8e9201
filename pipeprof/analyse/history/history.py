"""The history of many runs: results by script, host and setting, over time, and what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from pipeprof.analyse.history.changes import change_points
from pipeprof.analyse.history.summaries import Summary
from pipeprof.errors import PipeprofError

JSON_SCHEMA: Final = 1
LEAST_CHANGE: Final = 0.03
"""Change of the rate below which it is not named."""
MOSTLY: Final = 0.8
"""Share of the runs on each side of a change that must agree on a fact, for its difference to be named."""
KEYS: Final = ("script", "host", "setting")
_DAY_S: Final = 86_400
_S_PER_H: Final = 3600


@dataclass(frozen=True, slots=True)
class Group:
    """Several runs together. Medians, and the most frequent words; None is “not observed”."""

    key: tuple[str, ...]
    runs: int
    waiting: float | None
    cause: str | None
    mechanism: str | None
    rate: float | None
    waited_h: float | None
    """Accelerator hours spent waiting, over all runs that report it."""

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain values, the key by `names`."""
        figures = asdict(self)
        del figures["key"]
        return {**dict(zip(names, self.key, strict=True)), **figures}


@dataclass(frozen=True, slots=True)
class Change:
    """A run from which a script's rate on a host was another."""

    script: str
    host: str
    first: Summary
    before: Group
    after: Group
    change: float
    """Of the rate: −0.08 is 8 % fewer samples a second."""
    differs: tuple[tuple[str, str, str], ...] = ()
    """Facts that differ: the name, before, after."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "script": self.script,
            "host": self.host,
            "run": self.first.directory,
            "at": when(self.first),
            "change": self.change,
            "before": self.before.as_dict(()),
            "after": self.after.as_dict(()),
            "differs": [{"what": what, "before": old, "after": new} for what, old, new in self.differs],
        }


@dataclass(frozen=True)
class History:
    """Answer about many runs."""

    runs: list[Summary]
    by: tuple[str, ...]
    """The keys that `groups` are made by, of `KEYS`."""
    groups: list[Group]
    """Those first whose waiting cost most."""
    periods: list[Group]
    """By calendar day, month or week, in order."""
    changes: list[Change] = field(default_factory=list)
    """The largest drops first."""
    unsought: str | None = None
    """Reason why no changes were looked for."""

    @property
    def waited_h(self) -> float | None:
        """Return the accelerator hours that all runs spent waiting."""
        return _waited_h(self.runs)

    @property
    def unreadable(self) -> int:
        """Return the number of runs that could not be read."""
        return sum(run.status == "unreadable" for run in self.runs)

    def as_dict(self, price_per_h: float | None = None) -> dict[str, Any]:
        """Return the dictionary of `pipeprof history --json`, with costs if a price is given."""
        waited = self.waited_h
        return {
            "schema": JSON_SCHEMA,
            "unreadable": self.unreadable,
            "waited_h": waited,
            "cost": None if waited is None or price_per_h is None else waited * price_per_h,
            "changes": [one.as_dict() for one in self.changes],
            "changes_not_sought": self.unsought,
            "groups": [one.as_dict(self.by) for one in self.groups],
            "periods": [one.as_dict(("period",)) for one in self.periods],
            "runs": [{**asdict(run), "created_at": when(run), "waited_s": run.waited_s} for run in self.runs],
        }


def history(runs: Sequence[Summary], by: tuple[str, ...] = ("script", "host")) -> History:
    """Put summaries together: grouped `by` keys, over time, and where the rate of a script changed."""
    readable = [run for run in runs if run.status != "unreadable"]
    groups = [_group(key, some) for key, some in _grouped(readable, by).items()]
    groups.sort(key=lambda group: (-(group.waited_h or 0.0), -group.runs, group.key))
    try:
        changes, unsought = _changes(readable), None
    except PipeprofError as error:
        changes, unsought = [], str(error)
    return History(list(runs), by, groups, _periods(readable), changes, unsought)


def when(run: Summary) -> str | None:
    """Return the time of a run's making in ISO 8601, UTC; None if it does not say."""
    if run.when_s is None:
        return None
    return datetime.fromtimestamp(run.when_s, UTC).isoformat(timespec="seconds")


def _grouped(runs: Iterable[Summary], by: tuple[str, ...]) -> dict[tuple[str, ...], list[Summary]]:
    grouped: dict[tuple[str, ...], list[Summary]] = {}
    for run in runs:
        grouped.setdefault(tuple(getattr(run, name) for name in by), []).append(run)
    return grouped


def _group(key: tuple[str, ...], runs: Sequence[Summary]) -> Group:
    return Group(
        key,
        len(runs),
        _median(run.waiting for run in runs),
        _usual(run.cause for run in runs),
        _usual(run.mechanism for run in runs),
        _median(run.rate for run in runs),
        _waited_h(runs),
    )


def _median(values: Iterable[float | None]) -> float | None:
    seen = [value for value in values if value is not None]
    return median(seen) if seen else None


def _usual(words: Iterable[str | None]) -> str | None:
    """Return the most frequent word; None if most runs have none."""
    counted = Counter(words).most_common(1)
    return counted[0][0] if counted else None


def _waited_h(runs: Iterable[Summary]) -> float | None:
    waited = [run.waited_s for run in runs if run.waited_s is not None]
    return sum(waited) / _S_PER_H if waited else None


def _periods(runs: Sequence[Summary]) -> list[Group]:
    """Group the runs by time: by day for up to three weeks, by week for up to half a year, else by month."""
    dated = [(run, run.when_s) for run in runs if run.when_s is not None]
    if not dated:
        return []
    days = (max(at for _, at in dated) - min(at for _, at in dated)) / _DAY_S
    form = "%Y-%m-%d" if days <= 21 else "%G-W%V" if days <= 183 else "%Y-%m"
    grouped: dict[tuple[str, ...], list[Summary]] = {}
    for run, at in dated:
        grouped.setdefault((datetime.fromtimestamp(at, UTC).strftime(form),), []).append(run)
    return [_group(key, grouped[key]) for key in sorted(grouped)]


def _changes(runs: Sequence[Summary]) -> list[Change]:
    """Find where the rate of each script on each host changed, the largest drops first."""
    changes = []
    for (script, host), series in _grouped(runs, ("script", "host")).items():
        rated = [run for run in series if run.rate and run.when_s is not None and run.status == "complete"]
        starts = [0, *change_points([run.rate for run in rated if run.rate]), len(rated)]
        for before, first, end in zip(starts, starts[1:-1], starts[2:], strict=False):
            change = _change(script, host, rated[before:first], rated[first:end])
            if abs(change.change) >= LEAST_CHANGE:
                changes.append(change)
    return sorted(changes, key=lambda one: (one.change, one.first.directory))


def _change(script: str, host: str, old: list[Summary], new: list[Summary]) -> Change:
    before, after = _group((), old), _group((), new)
    assert before.rate and after.rate
    return Change(script, host, new[0], before, after, after.rate / before.rate - 1, _differences(old, new))


def _differences(old: Sequence[Summary], new: Sequence[Summary]) -> tuple[tuple[str, str, str], ...]:
    """Return the facts on which nearly all runs of each side agree, and the sides do not."""
    found = []
    for name in sorted({name for run in (*old, *new) for name in run.facts}):
        before, after = _agreed(old, name), _agreed(new, name)
        if before is not None and after is not None and before != after:
            found.append((name, before, after))
    return tuple(found)


def _agreed(runs: Sequence[Summary], name: str) -> str | None:
    words = Counter(run.facts[name] for run in runs if name in run.facts)
    if not words:
        return None
    word, count = words.most_common(1)[0]
    return word if count >= MOSTLY * len(runs) else None
