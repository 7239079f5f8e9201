"""Makes and opens the data sets that a scenario names."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Sized
from pathlib import Path
from statistics import fmean
from typing import Any, BinaryIO, Final, cast

from torch.utils.data import Dataset, IterableDataset, Subset

from pipeprof.devices import is_in_memory
from pipeprof.errors import DataError
from pipeprof.measure.data.datasets import (
    ImageFiles,
    Reader,
    TarShards,
    TensorFiles,
    decode_image,
    decode_tensor,
    image_transform,
    naming,
)
from pipeprof.measure.data.files import IMAGE_SUFFIXES, FileTable, find_files, spread
from pipeprof.measure.data.generate import SUFFIXES, made_set, set_facts
from pipeprof.measure.data.held import HeldFiles, HeldImages, HeldTensors
from pipeprof.measure.data.remote import RemoteFiles, remote_facts, remote_files
from pipeprof.measure.data.user_dataset import imported_dataset
from pipeprof.measure.storage.remote import RemoteStorage, url_of
from pipeprof.record.meta import DataMeta
from pipeprof.scenario import Scenario
from pipeprof.scenario.synthetic_limits import shard_samples

_DECODED: Final = 32
"""Samples whose decoding is timed."""
_DECODED_REMOTE: Final = 4
"""Fewer if each has to come from far away."""


def dataset_files(scenario: Scenario, storage: object = None) -> FileTable:
    """List the files that the scenario's data set reads; generated sets are made now.

    An imported data set's are those below `data.path`, and none are known if that is not given or remote. If
    `storage` is a remote place, or memory that is filled from one, they are there. Raises `DataError` if they
    are missing or cannot be made.
    """
    data = scenario.data
    remote = _remote(storage)
    if remote is not None and data.format != "imported":
        return remote_files(scenario, remote, SUFFIXES.get(data.format, IMAGE_SUFFIXES))
    if data.format in SUFFIXES:
        return _made_files(scenario)
    if data.format == "image_folder":
        return find_files(Path(data.path or ".").expanduser(), IMAGE_SUFFIXES, data.samples)
    known = data.path is not None and remote is None
    return find_files(Path(data.path or "").expanduser(), ("",)) if known else FileTable(Path(), [])


def _remote(storage: object) -> RemoteStorage | None:
    return storage if isinstance(storage, RemoteStorage) else getattr(storage, "remote", None)


def _made_files(scenario: Scenario) -> FileTable:
    directory = made_set(scenario)
    files = find_files(directory, SUFFIXES[scenario.data.format])
    facts, found_bytes = set_facts(directory), sum(path.stat().st_size for path in files)
    if (len(files), found_bytes) != (facts["files"], facts["file_bytes"]):
        raise DataError(
            f"{directory} is damaged: {facts['files']} files of {facts['file_bytes']} bytes were made, "
            f"{len(files)} of {found_bytes} bytes are there",
            "delete it; it will be made again",
        )
    return files


def open_dataset(scenario: Scenario, storage: Reader, files: FileTable | None = None) -> Dataset[Any]:
    """Open the scenario's data set, reading through `storage`; for `ram` and `pinned` it is loaded first.

    `files` are its `dataset_files`, if they are available. Map-style, except for `tar_shards` and imported
    iterable ones: an `IterableDataset` does its own shuffling. Raises `DataError` if it cannot be made,
    found, imported or held in memory.
    """
    data, in_memory = scenario.data, is_in_memory(scenario.storage.tier)
    if data.format == "imported":
        if in_memory:
            raise DataError(
                f"storage.tier is {scenario.storage.tier}, and an imported data set loads its own data",
                "load it into memory in your callable, and choose another storage.tier",
            )
        return _limited(imported_dataset(data.import_ or ""), data.samples)
    files = dataset_files(scenario, storage) if files is None else files
    if in_memory and scenario.storage.keep == "decoded":
        return _decoded(scenario, files, storage)
    if in_memory:
        storage = HeldFiles(files, storage)
    if data.format == "tensor_files":
        return TensorFiles(files, storage)
    transform = image_transform(data.crop)
    if data.format == "tar_shards":
        return TarShards(files, storage, transform, shard_samples(data.samples), scenario.loader.shuffle)
    return ImageFiles(files, storage, transform)


def _limited(dataset: Dataset[Any], samples: int) -> Dataset[Any]:
    """Take at most `samples` of the user's samples, evenly spaced; an iterable data set is not limited."""
    count = 0 if isinstance(dataset, IterableDataset) else len(cast(Sized, dataset))
    return Subset(dataset, spread(count, samples)) if count > samples else dataset


def _decoded(scenario: Scenario, files: FileTable, storage: Reader) -> Dataset[Any]:
    if scenario.data.format == "tar_shards":
        raise DataError(
            "storage.keep is decoded, and tar_shards are read as files", "use jpeg_folder, or keep encoded"
        )
    if scenario.data.format == "tensor_files":
        return HeldTensors(files, storage)
    return HeldImages(files, storage, image_transform(scenario.data.crop))


def describe_data(
    scenario: Scenario, storage: Reader | None = None, files: FileTable | None = None
) -> DataMeta:
    """Return facts for `run.json`: format, samples, mean_bytes and mean_decode_ns; null is not observed.

    The decode time is CPU time on this machine, now. It reads a few files: call it before they are evicted.
    """
    data = scenario.data
    if data.format == "imported":
        return DataMeta(format=data.format, import_=data.import_)
    remote = _remote(storage)
    files = dataset_files(scenario, remote) if files is None else files
    samples = data.samples
    if data.format == "image_folder":
        samples, mean_bytes = len(files), _mean_bytes(files)
    elif remote is not None:
        mean_bytes = remote_facts(remote, url_of(files.root))["mean_bytes"]
    else:
        mean_bytes = set_facts(files.root)["mean_bytes"]
    decoded = _DECODED if remote is None else _DECODED_REMOTE
    return DataMeta(
        format=data.format,
        path=url_of(files.root) if remote else str(files.root),
        samples=samples,
        mean_bytes=mean_bytes,
        mean_decode_ns=_mean_decode_ns(data.format, files, remote, decoded),
    )


def _mean_bytes(files: FileTable) -> float | None:
    if isinstance(files, RemoteFiles):
        return None if files.total_bytes is None else files.total_bytes / len(files)
    return fmean(path.stat().st_size for path in files)


def _mean_decode_ns(format_: str, files: FileTable, remote: RemoteStorage | None, count: int) -> float:
    times = []
    for index in spread(len(files), count):
        path = files[index]
        with naming(path, index), path.open("rb") if remote is None else remote.open(path) as file:
            times.append(_decode_ns(format_, file))
    return fmean(times[1:] or times)  # the first one warms the decoder up


def _decode_ns(format_: str, file: BinaryIO) -> int:
    """Measure the CPU time to decode the only sample of a file, or the first of a shard."""
    if format_ == "tar_shards":
        with tarfile.open(fileobj=file, mode="r|") as tar:
            content = cast(BinaryIO, tar.extractfile(cast(tarfile.TarInfo, tar.next()))).read()
    else:
        content = file.read()
    start_ns = time.thread_time_ns()
    if format_ == "tensor_files":
        decode_tensor(content)
    else:
        decode_image(io.BytesIO(content))
    return time.thread_time_ns() - start_ns
