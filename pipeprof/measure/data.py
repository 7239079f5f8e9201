"""Makes and opens the data sets that a scenario names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from pipeprof.errors import DataError
from pipeprof.measure.datasets import ImageFiles, TarShards, TensorFiles, image_transform
from pipeprof.measure.files import IMAGE_SUFFIXES, FileTable, find_files
from pipeprof.measure.generate import SUFFIXES, made_set, shard_samples
from pipeprof.measure.storage import Storage
from pipeprof.scenario import Scenario


def dataset_files(scenario: Scenario) -> FileTable:
    """The files that the scenario's data set reads, made now where they are to be made."""
    data = scenario.data
    if data.format == "image_folder":
        if not data.path:
            raise DataError("data.format is image_folder and data.path is missing", "give data.path")
        return find_files(Path(data.path).expanduser(), IMAGE_SUFFIXES, data.samples)
    return find_files(made_set(scenario), SUFFIXES[data.format])


def open_dataset(scenario: Scenario, storage: Storage) -> Dataset[Any]:
    """The scenario's data set, reading through `storage`."""
    data = scenario.data
    files = dataset_files(scenario)
    if data.format == "tensor_files":
        return TensorFiles(files, storage)
    transform = image_transform(data.crop)
    if data.format == "tar_shards":
        return TarShards(files, storage, transform, shard_samples(data.samples), scenario.loader.shuffle)
    return ImageFiles(files, storage, transform)
