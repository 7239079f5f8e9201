"""OpenTelemetry metrics of an observed loader, read when a reader collects and not before."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from pipeprof.analyse.verdict import Verdict
from pipeprof.integrations.observed import missing

try:
    from opentelemetry.metrics import Meter, Observation, get_meter
except ImportError as error:
    raise missing("opentelemetry-api", "otel") from error

_SUMS: Final = {
    "steps": ("pipeprof.steps", "{step}", "steps of the loop"),
    "samples": ("pipeprof.samples", "{sample}", "samples taken"),
    "wait_s": ("pipeprof.wait.time", "s", "time that the loop waited for batches"),
}
_GAUGES: Final = {
    "samples_per_s": ("pipeprof.samples.rate", "{sample}/s", "samples a second, from the first request on"),
    "wait_share": ("pipeprof.wait.share", "1", "share of the time that the loop waited for batches"),
}
_STAGE: Final = "stage/"
_SAME_COLLECTION_S: Final = 1.0
"""Time within which instruments are taken to be collected together: one verdict serves them all."""


class _Recent:
    """The verdict of a loader's last 30 s, made once for all instruments of a collection."""

    def __init__(self, known: weakref.ref[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._known, self._clock = known, clock
        self._verdict: Verdict | None = None
        self._made_s: float | None = None

    def verdict(self) -> Verdict | None:
        """Return it; None before the first steps and after the run."""
        recent: Callable[[], Verdict | None] | None = getattr(self._known(), "recent", None)
        if recent is None:
            return None
        if self._made_s is None or self._clock() - self._made_s >= _SAME_COLLECTION_S:
            self._verdict = recent()
            self._made_s = self._clock()
        return self._verdict

    def stall(self, _: Any) -> Iterable[Observation]:
        """Give the share of stall."""
        verdict = self.verdict()
        if verdict is not None and verdict.stall_share is not None:
            yield Observation(verdict.stall_share, {"pipeprof.cause": verdict.cause})

    def owners(self, _: Any) -> Iterable[Observation]:
        """Give the share of each owner in the ledger."""
        verdict = self.verdict()
        ledger_ns = (verdict and verdict.measured.ledger_ns) or {}
        whole_ns = sum(ledger_ns.values())
        for owner, ns in ledger_ns.items():
            yield Observation(ns / whole_ns if whole_ns else 0.0, {"pipeprof.owner": owner})

    def mechanism(self, _: Any) -> Iterable[Observation]:
        """Give the share of the mechanism that is named, if any."""
        verdict = self.verdict()
        if verdict is not None and verdict.mechanism is not None and verdict.mechanism_share is not None:
            why = {"pipeprof.cause": verdict.cause, "pipeprof.mechanism": verdict.mechanism}
            yield Observation(verdict.mechanism_share, why)


def observe(loader: Any, meter: Meter | None = None) -> None:
    """Give `loader.summary()` to OpenTelemetry: instruments `pipeprof.*`, of `meter` or the global provider.

    For the last 30 s, also the stall, the ledger's owners and the mechanism, as `pipeprof live` shows them.
    `loader` is a `ProfiledDataLoader` or what `profile()` gave. It is not kept alive; once it is gone, or its
    block has ended, nothing more is observed. What a loader does not observe has no data point.
    """
    of = get_meter("pipeprof") if meter is None else meter
    known = weakref.ref(loader)
    recent = _Recent(known)

    def scalars() -> dict[str, float]:
        summary: Callable[[], dict[str, float]] | None = getattr(known(), "summary", None)
        return {} if summary is None else summary()

    def observing(key: str) -> Callable[[Any], Iterable[Observation]]:
        return lambda _: [Observation(value) for name, value in scalars().items() if name == key]

    def stages(_: Any) -> Iterable[Observation]:
        shares = {name: value for name, value in scalars().items() if name.startswith(_STAGE)}
        for name, share in shares.items():
            stage = name.removeprefix(_STAGE).removesuffix("_share")
            yield Observation(share, {"pipeprof.stage": stage})

    for key, (name, unit, text) in _SUMS.items():
        of.create_observable_counter(name, [observing(key)], unit, text)
    for key, (name, unit, text) in _GAUGES.items():
        of.create_observable_gauge(name, [observing(key)], unit, text)
    of.create_observable_gauge("pipeprof.stage.share", [stages], "1", "share of the time that makes batches")
    for name, observed, text in (
        ("pipeprof.stall.share", recent.stall, "share of the last 30 s without a batch"),
        ("pipeprof.owner.share", recent.owners, "share of the last 30 s that each owner has in the ledger"),
        (
            "pipeprof.mechanism.share",
            recent.mechanism,
            "share of the cause's time that its mechanism explains",
        ),
    ):
        of.create_observable_gauge(name, [observed], "1", text)
