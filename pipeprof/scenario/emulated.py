"""From a scenario's words to the cost models of the devices that it emulates."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

from pipeprof import devices
from pipeprof.errors import ScenarioError
from pipeprof.scenario.schema import AcceleratorPart, StoragePart
from pipeprof.scenario.words import nearest

FIGURES: Final = tuple(
    f.name for f in fields(devices.StorageModel) if f.name not in ("name", "tier", "kind", "source")
)
"""The figures of a storage device that a scenario may change."""

_WHOLE: Final = {f.name for f in fields(devices.StorageModel) if f.type == "int"}

DEFAULT_ACCELERATOR: Final = "a100/resnet50"
"""The emulated accelerator of a scenario that says nothing of it."""


def storage_model(part: StoragePart) -> devices.StorageModel | None:
    """The emulated device of `part`; None where storage is real (`path`, `ram`, `pinned`).

    A `profile` is not read here: it stands for the figures of `device`, which it replaces.
    Raises `ScenarioError` for a preset or a figure that cannot be meant.
    """
    if part.path is not None or part.tier in ("ram", "pinned"):
        return None
    name = part.device or devices.DEFAULT_STORAGE.get(part.tier)
    if name is None or name not in devices.STORAGE:
        raise ScenarioError(f"no storage device is called {name}", nearest(str(name), devices.STORAGE))
    figures: dict[str, float] = {}
    for key, value in part.figures.items():
        if key not in FIGURES:
            raise ScenarioError(f"a storage device has no figure {key}", nearest(key, FIGURES))
        figures[key] = round(value) if key in _WHOLE else value
    return devices.with_figures(devices.STORAGE[name], figures)


def accelerator_model(part: AcceleratorPart) -> devices.AcceleratorModel:
    """The emulated accelerator of `part`; `ScenarioError` for a preset or a link that does not exist."""
    if part.link not in devices.LINKS:
        raise ScenarioError(f"no link is called {part.link}", nearest(part.link, devices.LINKS))
    link = devices.LINKS[part.link]
    if part.step_ms is not None:
        return devices.AcceleratorModel(
            name=f"{part.step_ms:g} ms a step",
            step_ns=round(part.step_ms * 1e6),
            step_stddev_ns=round(part.step_spread_ms * 1e6),
            queue_depth=part.queue_depth,
            link=link,
            source="given in the scenario",
        )
    name = part.preset or DEFAULT_ACCELERATOR
    if name not in devices.ACCELERATORS:
        raise ScenarioError(f"no accelerator is called {name}", nearest(name, devices.ACCELERATORS))
    return replace(devices.ACCELERATORS[name], queue_depth=part.queue_depth, link=link)
