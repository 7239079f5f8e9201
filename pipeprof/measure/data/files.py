"""The files of a data set: listed once, kept compactly, and looked up by position or by path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from pipeprof.errors import DataError

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes that torchvision's ImageFolder takes for an image."""


class FileTable(Sequence[Path]):
    """Paths below one root, with a class number each.

    The names are one array of bytes: a list of strings would have its reference counts written by every
    worker, and so be copied into each of them page by page.
    """

    def __init__(self, root: Path, names: Sequence[bytes]) -> None:
        self.root = root
        self.names: npt.NDArray[np.bytes_] = np.array(names, dtype=np.bytes_)
        folders = [name.rpartition(b"/")[0].partition(b"/")[0] for name in names]
        self.classes, labels = np.unique(np.array(folders, dtype=np.bytes_), return_inverse=True)
        self.labels: npt.NDArray[np.int32] = labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.root / os.fsdecode(bytes(self.names[index]))

    def label(self, index: int) -> int:
        """Return the class number of a file: the place of its top directory among all, else 0."""
        return int(self.labels[index])

    def name_of(self, path: Path) -> bytes:
        """Return the name by which the table knows `path`."""
        return os.fsencode(path).removeprefix(os.fsencode(self.root) + b"/")


def find_files(root: Path, suffixes: Iterable[str], limit: int | None = None) -> FileTable:
    """Find the files below `root` with one of `suffixes`, in ImageFolder's order; hidden ones are left out.

    Of more than `limit` files, `limit` are taken at even distances, so that each class keeps its share.
    Raises `DataError` if the directory is missing, cannot be read or holds no such file.
    """
    wanted = tuple(suffixes)
    try:
        names = sorted(_walk(root, wanted), key=lambda name: name.split(b"/"))
    except NotADirectoryError as error:
        raise DataError(f"{root} is not a directory", "give the directory that holds the files") from error
    except FileNotFoundError as error:
        raise DataError(f"there is no directory {root}", "check the path") from error
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}", "check its rights") from error
    if not names:
        raise DataError(f"{root} holds no file that ends in {', '.join(wanted)}", "give another directory")
    if limit is not None:
        names = [names[i] for i in spread(len(names), limit)]
    return FileTable(root, names)


def spread(count: int, limit: int) -> list[int]:
    """Return at most `limit` of `count` positions, at even distances."""
    return [i * count // limit for i in range(limit)] if limit < count else list(range(count))


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    """Yield names relative to `root`, as bytes; raise what the walk meets."""

    def fail(error: OSError) -> None:
        raise error

    for directory, folders, names in os.walk(root, followlinks=True, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(directory, root)
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.fsencode(name if below == "." else f"{below}/{name}")
