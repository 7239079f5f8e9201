"""The files of a data set: found once, kept compactly, and looked up by position or by path."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from pipeprof.errors import DataError

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for an image."""


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
        """The class number of a file: the place of its top directory among all, or 0 where there is none."""
        return int(self.labels[index])

    def name_of(self, path: Path) -> bytes:
        """The name by which the table knows `path`."""
        return os.fsencode(path).removeprefix(os.fsencode(self.root) + b"/")


def find_files(root: Path, suffixes: Iterable[str], limit: int | None = None) -> FileTable:
    """The files below `root` with one of `suffixes`, in ImageFolder's order; hidden ones are left out.

    Of more than `limit` files, `limit` are taken at even distances, so that each class keeps its share.
    Raises `DataError` where the directory is missing, cannot be read or holds no such file.
    """
    wanted = tuple(suffixes)
    try:
        names = sorted(_walk(root, wanted), key=lambda name: name.split(b"/"))
    except NotADirectoryError as error:
        raise DataError(f"{root} is no directory", "give the directory that holds the files") from error
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
    """At most `limit` of `count` positions, at even distances."""
    return [i * count // limit for i in range(limit)] if limit < count else list(range(count))


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    """Names relative to `root`, as bytes; raises what the walk meets."""

    def fail(error: OSError) -> None:
        raise error

    for directory, folders, names in os.walk(root, followlinks=True, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(directory, root)
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.fsencode(name if below == "." else f"{below}/{name}")


def format_bytes(size_bytes: float) -> str:
    """A size for people, in powers of ten: `110.0 KB`."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    power = min(4, int(math.log10(size_bytes) // 3))
    return f"{size_bytes / 1000**power:.1f} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"
