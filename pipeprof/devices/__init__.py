"""Pure cost models of the things data passes through, and the presets of known devices."""

from __future__ import annotations

from pipeprof.devices.models import (
    FIGURES,
    NOWHERE,
    NS_PER_S,
    AcceleratorModel,
    Kind,
    LinkModel,
    Request,
    Service,
    State,
    StorageModel,
    Tier,
    nearest,
    storage_from_dict,
    with_figures,
)
from pipeprof.devices.presets import (
    ACCELERATORS,
    DEFAULT_STORAGE,
    LINKS,
    STORAGE,
    accelerator_preset,
    link_preset,
    storage_preset,
)
from pipeprof.devices.profile import fit_error, storage_from_profile

__all__ = [
    "ACCELERATORS",
    "DEFAULT_STORAGE",
    "FIGURES",
    "LINKS",
    "NOWHERE",
    "NS_PER_S",
    "STORAGE",
    "AcceleratorModel",
    "Kind",
    "LinkModel",
    "Request",
    "Service",
    "State",
    "StorageModel",
    "Tier",
    "accelerator_preset",
    "fit_error",
    "link_preset",
    "nearest",
    "storage_from_dict",
    "storage_from_profile",
    "storage_preset",
    "with_figures",
]
