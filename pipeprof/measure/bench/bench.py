"""The parts that a scenario names, made and described: storage, data set, accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from pipeprof.measure.accelerator.contract import Accelerator
from pipeprof.measure.accelerator.make import make_accelerator
from pipeprof.measure.data.open import dataset_files, describe_data, open_dataset
from pipeprof.measure.session.job import Rank, here
from pipeprof.measure.storage.contract import Storage
from pipeprof.measure.storage.emulated_files import EmulatedStorage
from pipeprof.measure.storage.make import make_storage
from pipeprof.measure.storage.real import RealStorage
from pipeprof.measure.storage.slow_directory import Emulation
from pipeprof.record.meta import AcceleratorMeta, RunMeta, SeedsMeta, StorageMeta
from pipeprof.scenario import Scenario


class Bench:
    """The parts of one run. As a context manager it lets go at its end of what they share with workers.

    Raises a `PipeprofError` for whatever cannot be had here, before anything is written.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.warnings: list[str] = []
        with ExitStack() as opened:
            self.accelerator: Accelerator = make_accelerator(scenario, own_device_number(here()))
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
        """Slow the files below `data.path` to the device's pace: an imported data set opens its own files.

        False if there is a device to emulate and no telling which files are on it.
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
            with suppress(OSError):  # whoever reads the file will report it
                self.storage.before(files)
            self.warnings += self.storage.warnings

    def storage_facts(self) -> StorageMeta:
        """Return the `storage` part of `run.json`; called again at the end, with what was served."""
        if not self._reads_through_storage:
            return StorageMeta(name="the data set's own", emulated=False)
        said = self.storage.describe()
        return said if said.remote or said.cache else replace(said, cache=self.scenario.storage.cache)

    def facts(self) -> RunMeta:
        """Return what `run.json` records of the run before it starts."""
        accelerator, storage = self.accelerator.describe(), self.storage_facts()
        return RunMeta(
            accelerator=accelerator,
            storage=storage,
            data=self.data,
            model=self.accelerator.describe_model(),
            seeds=SeedsMeta(run=self.scenario.run.seed, data=self.scenario.data.seed),
            emulated=tuple(emulated_parts(accelerator, storage)),
            warnings=tuple(self.warnings),
            not_observed=(f"times of steps: {why}",) if (why := self.accelerator.why_untimed) else (),
        )


def own_device_number(rank: Rank | None) -> int | None:
    """Return the number of the device for `rank`: its local rank, else its rank; None outside a job."""
    if rank is None:
        return None
    return rank.rank if rank.local_rank is None else rank.local_rank


def emulated_parts(accelerator: AcceleratorMeta, storage: StorageMeta) -> list[str]:
    """List the emulated parts of a run, in words that may stand next to its numbers."""
    parts = []
    if storage.emulated:
        parts.append(f"storage: {storage.name}")
    if accelerator.emulated:
        parts.append(f"accelerator: {accelerator.name}")
    if accelerator.link is not None:
        parts.append(f"host-to-device link: {accelerator.link.name}")
    return parts
