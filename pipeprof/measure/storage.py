"""The Storage contract: how a data set gets at its bytes. Real files, and emulated devices.

Data sets open files through a `Storage` and never know which. An emulated device is shared by all processes
of a run: each read reserves its service time on the device's one timeline (`devices.StorageModel` over shared
memory) and sleeps until its turn has ended, while the real bytes are read from a warm file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pipeprof.devices import StorageModel, storage_from_profile, with_figures
from pipeprof.measure.profile import read_profile
from pipeprof.scenario import Scenario, StoragePart, storage_model
from pipeprof.scenario.remote import is_remote

if TYPE_CHECKING:
    from pipeprof.measure.remote_storage import RemoteStorage


class Storage(Protocol):
    """Where a data set's bytes live. Picklable, and shared by the workers that it is sent to.

    Each physical read is recorded by the worker's recorder as stage `read`, with its bytes and, where the
    device tells, the nanoseconds that it queued behind other requests.
    """

    emulated: bool

    def open(self, path: Path) -> BinaryIO:
        """A buffered, seekable binary file. Raises `OSError` as `open` does."""
        ...

    def read_bytes(self, path: Path) -> bytes:
        """The whole file, in as few device requests as the device allows."""
        ...

    def size(self, path: Path) -> int:
        """Of the file, in bytes."""
        ...

    def before(self, files: Sequence[Path]) -> None:
        """Bring the run's own files into the state that the scenario says; called once, before the run."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`: tier, name, emulated, model figures with their source, real device, warnings.

        Called before the run and again at its end, for what was counted.
        """
        ...

    def close(self) -> None:
        """Release the shared memory of this process."""
        ...


def make_storage(scenario: Scenario) -> Storage:
    """The storage that a scenario names: memory, a real directory, a remote place, or an emulated device.

    Raises `ScenarioError` for an unknown device or a figure that cannot be, `MeasureError` for a directory
    that cannot be used or a remote place without a client.
    """
    part = scenario.storage
    remote = _remote(part)
    if part.tier in ("ram", "pinned"):
        from pipeprof.measure.real_storage import MemoryStorage

        return MemoryStorage(part.tier, remote)
    if remote is not None:
        return remote
    if part.path is not None:
        from pipeprof.measure.real_storage import RealStorage

        return RealStorage(Path(part.path).expanduser(), part.tier, part.cache, part.cache_bytes)
    from pipeprof.measure.emulated_cache import EmulatedCache
    from pipeprof.measure.emulated_files import EmulatedStorage

    keeps = part.cache == "warm" or part.cache_bytes is not None
    return EmulatedStorage(_model(part), EmulatedCache(part.cache_bytes) if keeps else None)


def _remote(part: StoragePart) -> RemoteStorage | None:
    if part.path is None or not is_remote(part.path):
        return None
    from pipeprof.measure.remote_storage import RemoteStorage

    return RemoteStorage(part.path, part.tier, dict(part.options))


def _model(part: StoragePart) -> StorageModel:
    """The cost model of the device: a profile's, a preset's or the tier's own, with its figures changed."""
    if part.profile is not None:
        profile = read_profile(Path(part.profile))
        return with_figures(storage_from_profile(profile, tier=part.tier), part.figures)
    model = storage_model(part)
    assert model is not None, "storage.path is real"
    return model
