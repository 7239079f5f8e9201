"""Cost models of the devices that a scenario emulates, from its words."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pipeprof import devices
from pipeprof.scenario.schema import AcceleratorPart, StoragePart

DEFAULT_ACCELERATOR: Final = "a100/resnet50"
"""The emulated accelerator of a scenario that says nothing of it."""


def storage_model(part: StoragePart) -> devices.StorageModel | None:
    """Return the model of the place that `part` names; None if `path` names a real directory.

    `profile` is not read here: a device profile is a measurement, and its reader belongs to `measure`.
    Raises `ScenarioError` for a preset or a figure that cannot be meant.
    """
    if part.path is not None:
        return None
    model = devices.with_figures(devices.storage_preset(part.device or part.tier), part.figures)
    return replace(model, tier=part.tier)  # a rate limit may stand before a place of any tier


def accelerator_model(part: AcceleratorPart) -> devices.AcceleratorModel:
    """Return the emulated accelerator of `part`; `ScenarioError` for an unknown preset or link."""
    if part.step_ms is None:
        model = devices.accelerator_preset(part.preset or DEFAULT_ACCELERATOR)
    else:
        model = devices.AcceleratorModel(
            name=f"{part.step_ms:g} ms a step",
            step_ns=round(part.step_ms * 1e6),
            step_stddev_ns=round(part.step_spread_ms * 1e6),
            source="given in the scenario",
        )
    link = model.link if part.link is None else devices.link_preset(part.link)
    return replace(model, queue_depth=part.queue_depth, link=link)
