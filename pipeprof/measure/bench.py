"""What a scenario names, made and described: storage, data set, accelerator. Nothing of it runs here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from pipeprof.measure.accelerator import Accelerator, make_accelerator
from pipeprof.measure.data import dataset_files, describe_data, open_dataset
from pipeprof.measure.emulate import Emulation
from pipeprof.measure.emulated_files import EmulatedStorage
from pipeprof.measure.machine import machine_facts, package_versions
from pipeprof.measure.real_storage import RealStorage
from pipeprof.measure.storage import Storage, make_storage
from pipeprof.scenario import Scenario


class Bench:
    """The parts of one run. As a context manager it lets go at its end of what they share with workers.

    Raises a `PipeprofError` for whatever cannot be had here, before anything is written.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.warnings: list[str] = []
        with ExitStack() as opened:
            self.accelerator: Accelerator = make_accelerator(scenario)
            self.storage: Storage = make_storage(scenario)
            opened.callback(self._close_storage)
            files = dataset_files(scenario, self.storage)
            self.dataset: Dataset[Any] = open_dataset(scenario, self.storage, files)
            self.data = describe_data(scenario, self.storage, files)
            self._reads_through_storage = self._slow_imported(opened)
            self._settle_cache(files)
            self._opened = opened.pop_all()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        del self.dataset  # it may be the whole set in memory

    def _close_storage(self) -> None:
        close = getattr(self.storage, "close", None)
        if close is not None:
            close()

    def _slow_imported(self, opened: ExitStack) -> bool:
        """An imported data set opens its own files: those below `data.path` are read at the device's pace.

        False where there is a device to emulate and no telling which files are on it.
        """
        data = self.scenario.data
        if data.format != "imported" or not isinstance(self.storage, EmulatedStorage):
            return True
        if data.path is None:
            self.warnings.append(
                f"{self.storage.model.name} is not emulated: data.path does not say which files lie on it"
            )
            return False
        emulation = Emulation(self.storage, Path(data.path).expanduser())
        opened.callback(emulation.stop)
        self.warnings += [f"not slowed: {what}" for what in emulation.not_seen]
        return True

    def _settle_cache(self, files: Sequence[Path]) -> None:
        """Put the files into the state that the run is to begin with; an emulated device's are read warm."""
        if isinstance(self.storage, RealStorage):
            self.storage.before(files)
            self.warnings += self.storage.warnings
        elif isinstance(self.storage, EmulatedStorage):
            with suppress(OSError):  # who reads a file that cannot be read will tell
                self.storage.before(files)
            self.warnings += self.storage.warnings

    def storage_facts(self) -> dict[str, Any]:
        """The `storage` part of `run.json`; asked again at the end, with what was served."""
        if not self._reads_through_storage:
            return {"tier": None, "name": "the data set's own", "emulated": False}
        return {"cache": self.scenario.storage.cache, **self.storage.describe()}

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of the run before it starts."""
        accelerator, storage = self.accelerator.describe(), self.storage_facts()
        return {
            "accelerator": accelerator,
            "storage": storage,
            "data": self.data,
            "model": accelerator.pop("model", None),
            "machine": machine_facts(),
            "packages": package_versions(),
            "seeds": {"run": self.scenario.run.seed, "data": self.scenario.data.seed},
            "emulated": emulated_parts(accelerator, storage),
            "warnings": self.warnings,
        }


def emulated_parts(accelerator: dict[str, Any], storage: dict[str, Any]) -> list[str]:
    """What of a run is emulated, in words that may stand beside its numbers."""
    found = []
    if storage["emulated"]:
        found.append(f"storage: {storage['name']}")
    if accelerator["emulated"]:
        found.append(f"accelerator: {accelerator['name']}")
        found.append(f"host-to-device link: {accelerator['link']['name']}")
    return found
