"""Cost models with the figures of device profiles, which `pipeprof devices --measure` saved.

Each figure is read off where it shows: bandwidth where the most bytes came, latency where one small read was
outstanding, channels from the best number of small reads a second (Little's law). `fit_error` says how far
the model then is from what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from pipeprof.devices.models import StorageModel, Tier, is_in_memory
from pipeprof.errors import ScenarioError
from pipeprof.units import NS_PER_S

_REMEDY: Final = "measure it again with `pipeprof devices --measure`"


def storage_from_profile(
    profile: Mapping[str, Any], path: str | None = None, tier: Tier | None = None
) -> StorageModel:
    """Return the storage that `profile` measured at `path`, or the first that it measured.

    With `tier`, the first of that tier or, if the profile could not tell tiers, the first whose tier it left
    open. Raises `ScenarioError` if nothing of the kind was measured.
    """
    try:
        measured = [
            entry for entry in profile.get("tiers", ()) if entry.get("random") and entry.get("sequential")
        ]
        here = [entry for entry in measured if path is None or entry["path"] == path]
        entry = _of_tier(here, tier)
        if entry is not None:
            return _fitted(entry, tier)
        choices = [f"{entry['path']} ({entry['tier']})" for entry in here]
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ScenarioError(f"the device profile is damaged: {error!r}", _REMEDY) from error
    if choices:
        raise ScenarioError(
            f"the device profile measured nothing of the tier {tier}, but {', '.join(choices)}",
            "name the tier of one of them, or measure another place",
        )
    what = "no storage" if path is None else f"nothing at {path}"
    raise ScenarioError(f"the device profile measured {what}", _REMEDY)


def _of_tier(measured: Sequence[Mapping[str, Any]], tier: Tier | None) -> Mapping[str, Any] | None:
    """Return the first of the tier, else the first whose tier is not observed; without a tier the first."""
    if tier is None:
        return next(iter(measured), None)
    for wanted in (tier, None):
        for entry in measured:
            if entry.get("tier") == wanted:
                return entry
    return None


def _fitted(entry: Mapping[str, Any], tier: Tier | None) -> StorageModel:
    points: Sequence[Mapping[str, Any]] = entry["random"]
    sequential = float(entry["sequential"]["bytes_per_s"])
    alone = min(points, key=lambda point: (point["queue_depth"], point["size_bytes"]))
    name, source = f"profile:{entry['path']}", "measured by pipeprof devices"
    kind: Tier = entry.get("tier") or tier or "ssd"
    if is_in_memory(kind):
        return StorageModel(name, kind, "memory", source=source)
    if kind == "hdd":
        positioning = alone["latency_p50_ns"] - alone["size_bytes"] * NS_PER_S / sequential
        return StorageModel(name, kind, "disk", sequential, max(0, round(positioning)), source=source)
    bandwidth = max(sequential, *(point["reads_per_s"] * point["size_bytes"] for point in points))
    latency = max(0.0, alone["latency_p50_ns"] - alone["size_bytes"] * NS_PER_S / bandwidth)
    small = [point for point in points if point["size_bytes"] == alone["size_bytes"]]
    most = max(small, key=lambda point: point["reads_per_s"])
    if most.get("limited_by_python"):
        source += "; it may have more channels: Python set the pace of the small reads"
    return StorageModel(
        name,
        kind,
        "parallel",
        bandwidth,
        latency_ns=round(latency),
        channels=max(1, round(most["reads_per_s"] * latency / NS_PER_S)),
        source=source,
    )


def fit_error(model: StorageModel, points: Sequence[Mapping[str, Any]]) -> float:
    """Return the median of |modelled / measured - 1| over the measured points of random reads."""
    errors: list[float] = [
        abs(
            model.throughput_bytes_per_s(point["size_bytes"], point["queue_depth"])
            / (point["reads_per_s"] * point["size_bytes"])
            - 1
        )
        for point in points
    ]
    return median(errors)
