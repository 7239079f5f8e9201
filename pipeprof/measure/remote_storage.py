"""A remote place that fsspec can read: an object store, a web server. Nothing of it is emulated.

Small files are read in one request without asking for their size first; a larger file is read in blocks, as
fsspec itself does. No page cache holds what was read, so that every epoch is as cold as the first.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from pipeprof.measure import stages
from pipeprof.measure.datasets import SampleError
from pipeprof.measure.recorder import active, opened, reading
from pipeprof.measure.remote_errors import reason_of, refused
from pipeprof.measure.remote_requests import remote_read

BLOCK_BYTES: Final = 5 * 2**20
"""What one request asks for at the most while a file is read on: fsspec's own default."""

_clients: Final[dict[tuple[int, bool, str, str], Any]] = {}
"""By process, whether batches are recorded, scheme and options. Event loops, connections and their threads do
not survive a fork, and a client that a child collects waits for a thread that only its parent has: so each
process has its own, and lets none go."""


def url_of(path: Path | str) -> str:
    """The URL that became `path`: pathlib takes one of its two slashes away."""
    return re.sub(r"^([\w+.-]+):/(?!/)", r"\1://", str(path), count=1)


class RemoteFile(io.RawIOBase):
    """A file that is fetched in blocks as it is read. Put an `io.BufferedReader` over it.

    `fetch(start, end)` gives these bytes, fewer at the file's end, or the whole file where the server knows
    no ranges; `size()` is asked only where a block was full.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: Callable[[], int], name: str) -> None:
        self._fetch, self._ask_size = fetch, size
        self._block, self._begin = b"", 0
        self._position = 0
        self._size: int | None = None
        self.name = name

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes: seeking costs nothing until something is read there, but for the way back from the end."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to `offset` and return the position."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._whole_size()
        if offset < 0:
            raise OSError(f"negative seek position {offset}")
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the block at the position goes, fetched now if it is not here."""
        data = self._here()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(data))
        view[:count] = data[:count]
        self._position += count
        return count

    def readall(self) -> bytes:
        """The rest of the file: what is here, and all that is not in one request."""
        rest = bytes(self._here())
        self._position += len(rest)
        if rest and self._position < self._whole_size():
            more = self._fetch(self._position, self._whole_size())
            self._position += len(more)
            rest += more
        return rest

    def _here(self) -> memoryview:
        """What is fetched from the position on."""
        position = self._position
        if not self._begin <= position < self._begin + len(self._block):
            if self._size is not None and position >= self._size:
                return memoryview(b"")
            self._block, self._begin = self._fetch(position, position + BLOCK_BYTES), position
            if len(self._block) > BLOCK_BYTES:  # the server sent the whole file
                self._begin = 0
            if len(self._block) != BLOCK_BYTES:
                self._size = self._begin + len(self._block)
        return memoryview(self._block)[position - self._begin :]

    def _whole_size(self) -> int:
        if self._size is None:
            self._size = self._ask_size()
        return self._size


class RemoteStorage:
    """Files below a URL, read through fsspec. Each process that it reaches makes a client of its own.

    Raises `MeasureError` where there is no client for the URL.
    """

    emulated = False

    def __init__(self, url: str, tier: str, options: dict[str, Any] | None = None) -> None:
        self.url, self.tier, self.options = url.rstrip("/"), tier, options or {}
        _ = self.client

    @property
    def client(self) -> Any:
        """This process's fsspec file system, and one of its own for when batches are recorded."""
        scheme, recorded = self.url.partition("://")[0], active() is not None
        mine = os.getpid(), recorded, scheme, json.dumps(self.options, sort_keys=True)
        if mine not in _clients:
            with refused(self.url):
                import fsspec

                kind = fsspec.get_filesystem_class(scheme)
                if recorded:
                    stages.install()  # the client's library may have been loaded only now
                own = {"skip_instance_cache": True, "use_listings_cache": False}
                _clients[mine] = kind(**own | self.options)
        return _clients[mine]

    def key(self, path: Path | str) -> str:
        """The name by which the client knows `path`."""
        return str(self.client._strip_protocol(url_of(path)))

    def open(self, path: Path) -> BinaryIO:
        """A buffered, seekable file: a small one costs one request, however it is read."""
        return io.BufferedReader(self._file(path))

    def read_bytes(self, path: Path) -> bytes:
        """The whole file, in one request where it is small."""
        with self._file(path) as file:
            return file.readall()

    def size(self, path: Path) -> int:
        """Of the file, in bytes; asks the server where the listing did not tell."""
        with _named(url_of(path)):
            return int(self.client.size(self.key(path)))

    def _file(self, path: Path) -> RemoteFile:
        client, key, name = self.client, self.key(path), url_of(path)
        opened()

        def fetch(start: int, end: int) -> bytes:
            reading(name)
            with _named(name), remote_read() as record:
                content = bytes(client.cat_file(key, start=start, end=end))
                record.bytes = len(content)
            return content

        def size() -> int:
            with _named(name), remote_read():
                return int(client.size(key))

        return RemoteFile(fetch, size, name)

    def before(self, files: Sequence[Path]) -> None:
        """Nothing: no cache of this machine holds them."""

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`. There is no page cache and no block device to tell of."""
        return {
            "tier": self.tier,
            "name": self.url,
            "emulated": False,
            "remote": True,
            "path": self.url,
            "client": type(self.client).__name__,
            "options": self.options,
            "cache": None,
            "cache_bytes": None,
            "block_bytes": BLOCK_BYTES,
            "warnings": [],
        }

    def close(self) -> None:
        """Nothing is shared; the client may serve the next run."""


@contextmanager
def _named(url: str) -> Iterator[None]:
    """A worker's error is one text: which file, why."""
    try:
        yield
    except Exception as error:  # clients raise what they like
        problem, remedy = reason_of(error)
        raise SampleError(f"{url} cannot be read: {problem}", remedy) from error
