"""Pure cost models of everything that data passes through, and the presets of known devices."""

from __future__ import annotations

from pipeprof.devices.models import (
    FIGURES,
    NOWHERE,
    AcceleratorModel,
    Kind,
    LinkModel,
    Request,
    Server,
    Service,
    State,
    StorageModel,
    Tier,
    is_in_memory,
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
    "STORAGE",
    "AcceleratorModel",
    "Kind",
    "LinkModel",
    "Request",
    "Server",
    "Service",
    "State",
    "StorageModel",
    "Tier",
    "accelerator_preset",
    "fit_error",
    "is_in_memory",
    "link_preset",
    "storage_from_profile",
    "storage_preset",
    "with_figures",
]
