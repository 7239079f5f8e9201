"""OpenTelemetry metrics of an observed loader, read when a reader collects and not before."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

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


def observe(loader: Any, meter: Meter | None = None) -> None:
    """Give `loader.summary()` to OpenTelemetry: instruments `pipeprof.*`, of `meter` or the global provider.

    `loader` is a `ProfiledDataLoader` or what `profile()` gave. It is not kept alive; once it is gone, or its
    block has ended, nothing is observed any more. What a loader does not observe has no data point.
    """
    of = get_meter("pipeprof") if meter is None else meter
    known = weakref.ref(loader)

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
