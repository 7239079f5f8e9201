"""`pipeprof.emulate`: the user's own data set, read as if its files lay on another device.

Who opens a file under the directory for binary reading through Python (`open`, `io.open`, `Path.open`, and so
PIL, numpy.load, tarfile, pickle on a file) gets an emulated file. The workers of every DataLoader share the
device, under any start method.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, Final

from pipeprof.devices import StorageModel, storage_preset, with_figures
from pipeprof.errors import MeasureError
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.files import add_opener, remove_opener
from pipeprof.measure.storage.emulated_files import EmulatedFile, EmulatedStorage
from pipeprof.record.decode import encode

NOT_SEEN: Final = (
    "reads by native code, which opens files itself (cv2.imread, torchvision.io.read_file, pyarrow, libtiff)",
    "memory maps (mmap, numpy.memmap, safetensors), and reads through a descriptor (numpy.fromfile, os.read)",
    "files opened as text, and files that were open before",
)
"""Reads that are not slowed, because they do not come through Python's file objects."""

_active: Final[list[Emulation]] = []


class Emulation:
    """A directory whose files are read at the pace of `storage`, from now until `stop`.

    Use it as a context manager, or keep it. `describe()` returns what the device has served, and `not_seen`
    which reads it cannot slow.
    """

    not_seen = NOT_SEEN

    def __init__(self, storage: EmulatedStorage, path: Path) -> None:
        self.storage = storage
        self.path = path
        self._roots = tuple({f"{path.absolute()}{os.sep}", f"{path.resolve()}{os.sep}"})
        self._start()

    def __enter__(self) -> Emulation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __call__(self) -> None:
        """Start in this process too, if it was sent; nothing if it runs already."""
        if all(each.path != self.path for each in _active):
            self._start()

    def _start(self) -> None:
        _active.append(self)
        add_opener(self.open)
        hook.start_workers_with(self)

    def stop(self) -> None:
        """Stop slowing reads in this process and release the device. Running workers keep it."""
        if self in _active:
            _active.remove(self)
            remove_opener(self.open)
            hook.start_workers_without(self)
            self.storage.close()

    def describe(self) -> dict[str, Any]:
        """Return what is emulated and what was read so far, by all processes."""
        return {**encode(self.storage.describe()), "path": str(self.path), "not_seen": list(self.not_seen)}

    def open(self, file: Any, buffering: int) -> EmulatedFile | EmulatedReader | None:
        """Open a file under the directory on the emulated device; None for any other."""
        if not self.covers(file):
            return None
        raw = EmulatedFile(os.fsdecode(file), self.storage.device, self.storage.cache)
        return raw if buffering == 0 else EmulatedReader(raw)

    def covers(self, file: Any) -> bool:
        """Return whether `file` lies under the directory, symbolic links followed."""
        name = os.path.abspath(os.fsdecode(file))  # noqa: PTH100 - asks nothing of the file system
        return name.startswith(self._roots) or os.path.realpath(name).startswith(self._roots)


def emulate(
    device: str | StorageModel = "hdd-7200", *, path: str | os.PathLike[str], **figures: float
) -> Emulation:
    """Slow down reads of files under `path` to the speed of `device`, in this process and its workers.

    `device` is a preset (`hdd-7200`), a tier (`hdd`) or a `StorageModel`; `figures` change its figures, such
    as `bandwidth_bytes_per_s=100e6`. The files are really read from where they lie, so they should be in
    memory or on something faster. Reads that do not come through Python's file objects are not slowed: see
    `NOT_SEEN`. Raises `ScenarioError` for an unknown device or a figure that cannot be, `MeasureError` if
    `path` is not a readable directory.

        with pipeprof.emulate("hdd-7200", path="data/train") as disk:
            train(loader)
        print(disk.describe())
    """
    model = device if isinstance(device, StorageModel) else storage_preset(device)
    directory = Path(path).expanduser()
    problem = _unusable(directory)
    if problem:
        raise MeasureError(f"emulate: {directory} {problem}", "give the directory that holds the files")
    return Emulation(EmulatedStorage(with_figures(model, figures)), directory)


def _unusable(directory: Path) -> str:
    try:
        with os.scandir(directory):
            return ""
    except FileNotFoundError:
        return "does not exist"
    except NotADirectoryError:
        return "is not a directory"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


class EmulatedReader(io.BufferedIOBase):
    """The buffered file that `open` returns for a file on an emulated device.

    It is not an `io.BufferedReader`, because numpy reads those behind Python's back. It has a descriptor,
    because programs ask for one, and warns that what is read through it is not slowed.
    """

    mode = "rb"

    def __init__(self, raw: EmulatedFile) -> None:
        self._raw = raw
        self._inner = io.BufferedReader(raw)
        self.name = raw.name

    @property
    def raw(self) -> EmulatedFile:
        """Return the file without its buffer."""
        return self._raw

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, or all that is left."""
        return self._inner.read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes with at most one read of the device."""
        return self._inner.read1(size)

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`."""
        return self._inner.readinto(buffer)

    def readinto1(self, buffer: Any, /) -> int:
        """Fill `buffer` with at most one read of the device."""
        return self._inner.readinto1(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read one line."""
        return self._inner.readline(size)

    def peek(self, size: int = 0, /) -> bytes:
        """Return what is in the buffer without advancing."""
        return self._inner.peek(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to `offset` and return the position."""
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._inner.tell()

    def fileno(self) -> int:
        """Return the real file's descriptor, with a warning that reads through it are not slowed."""
        warnings.warn(
            f"{self.name}: pipeprof.emulate does not slow reads through a descriptor (mmap, numpy.fromfile)",
            stacklevel=2,
        )
        return self._raw.descriptor()

    def close(self) -> None:
        """Close the real file."""
        if not self.closed:
            self._inner.close()
        super().close()
