"""Scenarios: what to measure, as validated frozen data. YAML in, scenarios out; matrices expanded.

This room knows what may be said and what it means; it never imports torch and never measures.
"""

from __future__ import annotations

from pipeprof.scenario.emulated import accelerator_model, storage_model
from pipeprof.scenario.load import load, with_values
from pipeprof.scenario.schema import (
    AcceleratorPart,
    DataPart,
    ExpectPart,
    LoaderPart,
    ModelPart,
    RunPart,
    Scenario,
    StoragePart,
    json_schema,
)

__all__ = [
    "AcceleratorPart",
    "DataPart",
    "ExpectPart",
    "LoaderPart",
    "ModelPart",
    "RunPart",
    "Scenario",
    "StoragePart",
    "accelerator_model",
    "json_schema",
    "load",
    "storage_model",
    "with_values",
]
