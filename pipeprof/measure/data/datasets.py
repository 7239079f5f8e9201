"""The torch data sets of a scenario. Each reads through a `Reader` and times what it does to the bytes.

A sample is (tensor, class number).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pipeprof.errors import PipeprofError, SampleError
from pipeprof.measure.data.files import FileTable
from pipeprof.measure.probe import spans as recorder

Sample = tuple[torch.Tensor, int]
Transform = Callable[[Image.Image], torch.Tensor]

_READ_AHEAD: Final = 128 * 1024
"""A tar is read in pieces of this size: Linux's default read-ahead."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, per colour, as torchvision's models want them."""


class Reader(Protocol):
    """The part of a `Storage` that a data set needs."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file for buffered, seekable binary reading."""
        ...

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file."""
        ...

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        ...


@contextmanager
def naming(what: object, index: int) -> Iterator[None]:
    """Raise `SampleError` with file and index for whatever goes wrong with a sample."""
    try:
        yield
    except (PipeprofError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        if isinstance(error, OSError) and error.errno is not None:
            reason, remedy = error.strerror, "check that the file is there and that you may read it"
        else:
            reason, remedy = str(error) or type(error).__name__, "the file is damaged: replace or remove it"
        raise SampleError(f"sample {index} cannot be read: {what}: {reason}", remedy) from error


def image_transform(crop: int) -> Transform:
    """Make the transform of image classification's training images (torchvision's reference recipe)."""
    from torchvision import transforms  # costs as much as torch itself; tensors need none of it

    transform: Transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _DEVIATION),
        ]
    )
    return transform


def decode_image(file: BinaryIO) -> Image.Image:
    """Decode an image as torchvision's ImageFolder does."""
    with recorder.span(recorder.DECODE):
        return Image.open(file).convert("RGB")


def decode_tensor(content: bytes) -> torch.Tensor:
    """Decode the array of an `.npy` file."""
    with recorder.span(recorder.DECODE):
        return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))


class ImageFiles(Dataset[Sample]):
    """Images, one in each file, decoded and transformed as with torchvision's ImageFolder."""

    def __init__(self, files: FileTable, storage: Reader, transform: Transform) -> None:
        self.files, self.storage, self.transform = files, storage, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path = self.files[index]
        with naming(path, index), self.storage.open(path) as file:
            image = decode_image(file)
        return self.transform(image), self.files.label(index)


class TensorFiles(Dataset[Sample]):
    """`.npy` arrays, one in each file, used as they are."""

    def __init__(self, files: FileTable, storage: Reader) -> None:
        self.files, self.storage = files, storage

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path = self.files[index]
        with naming(path, index):
            return decode_tensor(self.storage.read_bytes(path)), self.files.label(index)


class TarShards(IterableDataset[Sample]):
    """WebDataset shards, each read from front to back by one worker; `shuffle` shuffles the shards."""

    def __init__(
        self, files: FileTable, storage: Reader, transform: Transform, shard_samples: int, shuffle: bool
    ) -> None:
        self.files, self.storage, self.transform = files, storage, transform
        self.shard_samples, self.shuffle = shard_samples, shuffle
        self.rank, self.ranks = 0, 1
        """Each rank of a job reads its own share of the shards."""
        self._epoch = 0

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        part, parts = self.rank * workers + worker, self.ranks * workers
        for shard in self._order(info.seed - info.id if info else torch.initial_seed())[part::parts]:
            yield from self._read(shard)

    def _order(self, seed: int) -> list[int]:
        """Return the order of the shards, the same in every worker of an epoch."""
        if not self.shuffle:
            return list(range(len(self.files)))
        self._epoch += 1
        generator = torch.Generator().manual_seed((seed + self._epoch) % 2**63)
        return torch.randperm(len(self.files), generator=generator).tolist()

    def _read(self, shard: int) -> Iterator[Sample]:
        path, first = self.files[shard], shard * self.shard_samples
        with naming(path, first):
            file = self.storage.open(path)
        with file:
            samples = _samples(file)
            for index in count(first):
                with naming(path, index):
                    sample = next(samples, None)
                if sample is None:
                    return
                name, content, label = sample
                with naming(f"{path}, {name}", index):
                    image = decode_image(io.BytesIO(content))
                yield self.transform(image), label


def _samples(file: BinaryIO) -> Iterator[tuple[str, bytes, int]]:
    """Name, image and class number of each sample of a shard."""
    with tarfile.open(fileobj=file, mode="r|", bufsize=_READ_AHEAD) as tar:
        members = ((member.name, _content(tar, member)) for member in tar)
        for name, content in members:
            yield name, content, int(next(members)[1])


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""
