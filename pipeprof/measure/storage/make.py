"""Makes the storage that a scenario names."""

from __future__ import annotations

from pathlib import Path

from pipeprof.devices import StorageModel, is_in_memory, storage_from_profile, with_figures
from pipeprof.measure.storage.contract import Storage
from pipeprof.scenario import Scenario, StoragePart, storage_model
from pipeprof.scenario.profile import read_profile
from pipeprof.scenario.remote import is_remote


def make_storage(scenario: Scenario) -> Storage:
    """Make the storage that a scenario names: memory, a directory, a remote place or an emulated device.

    Raises `ScenarioError` for an unknown device or a figure that cannot be, `MeasureError` for a directory
    that cannot be used or a remote place without a client.
    """
    part = scenario.storage
    remote = _remote(part)
    if is_in_memory(part.tier):
        from pipeprof.measure.storage.real import MemoryStorage

        return MemoryStorage(part.tier, remote)
    if remote is not None:
        return remote
    if part.path is not None:
        from pipeprof.measure.storage.real import RealStorage

        return RealStorage(Path(part.path).expanduser(), part.tier, part.cache, part.cache_bytes)
    from pipeprof.measure.storage.emulated_cache import EmulatedCache
    from pipeprof.measure.storage.emulated_files import EmulatedStorage

    keeps = part.cache == "warm" or part.cache_bytes is not None
    return EmulatedStorage(_model(part), EmulatedCache(part.cache_bytes) if keeps else None)


def _remote(part: StoragePart) -> Storage | None:
    if part.path is None or not is_remote(part.path):
        return None
    from pipeprof.measure.storage.remote import RemoteStorage

    return RemoteStorage(part.path, part.tier, dict(part.options))


def _model(part: StoragePart) -> StorageModel:
    """Return the cost model of the device, from a profile, a preset or the tier, with its figures changed."""
    if part.profile is not None:
        profile = read_profile(Path(part.profile))
        return with_figures(storage_from_profile(profile, tier=part.tier), part.figures)
    model = storage_model(part)
    assert model is not None, "storage.path is real"
    return model
