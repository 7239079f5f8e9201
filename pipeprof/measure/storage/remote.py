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

from pipeprof.errors import SampleError
from pipeprof.measure.probe import auto_stages as stages
from pipeprof.measure.probe.remote_requests import remote_read
from pipeprof.measure.probe.spans import active, opened, reading
from pipeprof.measure.storage.remote_errors import reason_of, refused
from pipeprof.measure.storage.seekable_file import SeekableFile
from pipeprof.record.meta import StorageMeta

BLOCK_BYTES: Final = 5 * 2**20
"""Most bytes of one request while a file is read on: fsspec's own default."""

_clients: Final[dict[tuple[int, bool, str, str], Any]] = {}
"""By process, whether batches are recorded, scheme and options. Event loops, connections and their threads do
not survive a fork, and a client that a child collects waits for a thread that only its parent has: so each
process has its own, and lets none go."""


def url_of(path: Path | str) -> str:
    """Return the URL of `path`: pathlib takes one of its two slashes away."""
    return re.sub(r"^([\w+.-]+):/(?!/)", r"\1://", str(path), count=1)


class RemoteFile(SeekableFile):
    """A file that is fetched in blocks as it is read. Put an `io.BufferedReader` over it.

    `fetch(start, end)` gives these bytes, fewer at the file's end, or the whole file if the server knows no
    ranges; `size()` is asked only if a block was full.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: Callable[[], int], name: str) -> None:
        self._fetch, self._ask_size = fetch, size
        self._block, self._begin = b"", 0
        self._size: int | None = None
        self.name = name

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the block at the position goes, fetched now if it is not here."""
        data = self._here()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(data))
        view[:count] = data[:count]
        self._position += count
        return count

    def readall(self) -> bytes:
        """Read the rest of the file: what is fetched, and the remainder in one request."""
        rest = bytes(self._here())
        self._position += len(rest)
        if rest and self._position < self._end():
            more = self._fetch(self._position, self._end())
            self._position += len(more)
            rest += more
        return rest

    def _here(self) -> memoryview:
        """Return what is fetched from the position on."""
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

    def _end(self) -> int:
        if self._size is None:
            self._size = self._ask_size()
        return self._size


class RemoteStorage:
    """Files below a URL, read through fsspec. Each process that it reaches makes a client of its own.

    Raises `MeasureError` if there is no client for the URL.
    """

    emulated = False

    def __init__(self, url: str, tier: str, options: dict[str, Any] | None = None) -> None:
        self.url, self.tier, self.options = url.rstrip("/"), tier, options or {}
        _ = self.client

    @property
    def client(self) -> Any:
        """Return this process's fsspec file system; recorded batches have one of their own."""
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
        """Return the name by which the client knows `path`."""
        return str(self.client._strip_protocol(url_of(path)))

    def open(self, path: Path) -> BinaryIO:
        """Open a buffered, seekable file: a small one costs one request, however it is read."""
        return io.BufferedReader(self._file(path))

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file, in one request if it is small."""
        with self._file(path) as file:
            return file.readall()

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes; asks the server if the listing had none."""
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
        """Do nothing: no cache of this machine holds the files."""

    def describe(self) -> StorageMeta:
        """Return facts for `run.json`. There is no page cache and no block device."""
        return StorageMeta(
            tier=self.tier,
            name=self.url,
            emulated=False,
            remote=True,
            path=self.url,
            client=type(self.client).__name__,
            options=self.options,
            block_bytes=BLOCK_BYTES,
        )

    def close(self) -> None:
        """Do nothing: the client may serve the next run."""


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raise `SampleError` with the file and the reason for whatever a client raises."""
    try:
        yield
    except Exception as error:  # clients raise what they like
        problem, remedy = reason_of(error)
        raise SampleError(f"{url} cannot be read: {problem}", remedy) from error
