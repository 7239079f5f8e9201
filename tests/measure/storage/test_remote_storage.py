"""Files below a URL: read in few requests, by the clients of fsspec, and what is said where that fails."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeprof.errors import DataError, MeasureError, SampleError
from pipeprof.measure.data.open import dataset_files, describe_data, open_dataset
from pipeprof.measure.storage import remote as remote_storage
from pipeprof.measure.storage.make import make_storage
from pipeprof.measure.storage.remote import RemoteFile, RemoteStorage, url_of
from pipeprof.measure.storage.remote_errors import refused
from pipeprof.scenario import Scenario

BLOCK = remote_storage.BLOCK_BYTES


class Server:
    """Answers for one file, and keeps what it was asked."""

    def __init__(self, content: bytes, ranges: bool = True) -> None:
        self.content, self.ranges, self.asked = content, ranges, list[Any]()

    def fetch(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return self.content[start:end] if self.ranges else self.content

    def size(self) -> int:
        self.asked.append("size")
        return len(self.content)

    def file(self) -> RemoteFile:
        return RemoteFile(self.fetch, self.size, "s3://bucket/file")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def places(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIPEPROF_CACHE", str(cache))
    yield
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def scenario(path: str = "memory://bucket/train", **data: Any) -> Scenario:
    told = {"format": "tensor_files", "samples": 12, "sample_bytes": 400, **data}
    return Scenario(name="x", data=told, storage={"tier": "network", "path": path})


@pytest.mark.parametrize("size", [1, 1000, BLOCK - 1])
def test_a_small_file_is_one_request_whoever_reads_it(size: int) -> None:
    server = Server(bytes(range(256)) * (size // 256 + 1))
    server.content = server.content[:size]
    assert server.file().readall() == server.content
    assert server.asked == [(0, BLOCK)]
    server.asked.clear()
    file = io.BufferedReader(server.file())
    pieces = list(iter(lambda: file.read(4096), b""))
    assert b"".join(pieces) == server.content
    assert server.asked == [(0, BLOCK)]


@pytest.mark.parametrize("size", [BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_large_file_is_read_to_its_end_and_not_beyond(size: int) -> None:
    server = Server(b"x" * size)
    assert len(server.file().readall()) == size
    assert len(server.asked) <= 3
    server.asked.clear()
    file = server.file()
    assert sum(len(piece) for piece in iter(lambda: file.read(BLOCK), b"")) == size


def test_a_server_without_ranges_sends_the_whole_file_once() -> None:
    server = Server(b"y" * (BLOCK + 10), ranges=False)
    assert server.file().readall() == server.content
    assert server.asked == [(0, BLOCK)]


def test_seeking_costs_a_request_only_where_something_is_read() -> None:
    server = Server(bytes(range(200)))
    file = server.file()
    assert file.seek(-10, io.SEEK_END) == 190
    assert file.read() == bytes(range(190, 200))
    assert file.seek(5) == 5
    assert file.seek(1, io.SEEK_CUR) == 6
    assert file.read(2) == b"\6\7"


def test_pathlib_takes_a_slash_that_is_given_back() -> None:
    assert url_of(Path("s3://bucket/a") / "b.jpg") == "s3://bucket/a/b.jpg"
    assert url_of(Path("/data/a")) == "/data/a"


def test_a_made_set_is_put_there_once_and_read_like_a_local_one() -> None:
    storage = make_storage(scenario())
    dataset = open_dataset(scenario(), storage)
    here = Scenario(name="x", data=scenario().data, storage={"tier": "ram"})
    local = open_dataset(here, make_storage(here))
    assert len(dataset) == 12
    assert all((dataset[i][0] == local[i][0]).all() and dataset[i][1] == local[i][1] for i in range(12))
    client = storage.client
    put = client.ls("/bucket/train/pipeprof-data", detail=False)
    times = {name: client.modified(name) for name in client.find(put[0])}
    open_dataset(scenario(), storage)
    assert times == {name: client.modified(name) for name in client.find(put[0])}


def test_a_set_that_was_broken_off_is_put_there_whole() -> None:
    storage = make_storage(scenario())
    files = dataset_files(scenario(), storage)
    storage.client.rm(storage.key(f"{url_of(files.root)}/set.json"))
    storage.client.rm(storage.key(files[5]))
    assert len(dataset_files(scenario(), storage)) == 12


def test_a_damaged_set_is_refused() -> None:
    storage = make_storage(scenario())
    storage.client.rm(storage.key(dataset_files(scenario(), storage)[5]))
    with pytest.raises(DataError, match="is damaged: 12 files were put there, 11"):
        dataset_files(scenario(), storage)


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["jpeg_folder", "tar_shards", "tensor_files"])
def test_every_format_is_read_and_described(format_: str) -> None:
    parts = scenario(format=format_, sample_bytes=None, samples=4, crop=16)
    storage = make_storage(parts)
    dataset = open_dataset(parts, storage)
    assert len(list(dataset)) == 4 if format_ == "tar_shards" else dataset[3]
    facts = describe_data(parts, storage)
    assert facts.path.startswith("memory://bucket/train/pipeprof-data/")
    assert facts.mean_decode_ns > 0
    assert facts.mean_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["encoded", "decoded"])
def test_ram_is_filled_from_afar(keep: str) -> None:
    near = scenario(format="jpeg_folder", sample_bytes=None, samples=4, crop=16)
    in_memory = near.model_copy(
        update={"storage": near.storage.model_copy(update={"tier": "ram", "keep": keep})}
    )
    dataset = open_dataset(in_memory, make_storage(in_memory))
    make_storage(near).client.store.clear()
    assert [dataset[i][1] for i in range(len(dataset))] == [0, 1, 2, 3]


def test_there_is_no_page_cache_to_tell_of() -> None:
    facts = RemoteStorage("memory://bucket", "network").describe()
    assert facts.remote is True
    assert facts.cache is None
    assert facts.cache_bytes is None


def test_it_reaches_workers_without_its_clients() -> None:
    storage = RemoteStorage("memory://bucket", "network")
    there = pickle.loads(pickle.dumps(storage))
    assert there.__dict__ == {"url": "memory://bucket", "tier": "network", "options": {}}


def test_a_file_that_is_gone_is_named_as_it_was_written() -> None:
    storage = RemoteStorage("memory://bucket", "network")
    with pytest.raises(SampleError, match=r"memory://bucket/a.jpg cannot be read: there is no such file"):
        storage.read_bytes(Path("memory://bucket/a.jpg"))


def test_s3_without_s3fs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MeasureError) as caught:
        RemoteStorage("s3://bucket", "network", {"anon": True, "default_block_size": 1})
    assert str(caught.value) == "storage.path: s3://bucket: s3fs is not installed\npip install 'pipeprof[s3]'"


class NoCredentialsError(Exception):
    """As botocore's is called."""


class EndpointConnectionError(Exception):
    """As botocore's is called."""


def answered(code: str) -> Exception:
    error = OSError("the server's words")
    error.__cause__ = type("ClientError", (Exception,), {"response": {"Error": {"Code": code}}})()
    return error


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (NoCredentialsError("none"), "there are no credentials", "AWS_ACCESS_KEY_ID"),
        (EndpointConnectionError("no way"), "the endpoint cannot be reached", "AWS_ENDPOINT_URL"),
        (FileNotFoundError("The specified bucket does not exist"), "no such bucket", "create it"),
        (answered("NoSuchBucket"), "no such bucket", "create it"),
        (answered("SlowDown"), "one request too many", "fewer workers"),
        (PermissionError("Forbidden"), "permission denied", "AWS_ACCESS_KEY_ID"),
        (ValueError("Protocol not known: foo"), "no such protocol", "s3://"),
        (TypeError("unexpected keyword argument 'endpont_url'"), "endpont_url", "storage.options"),
        (OSError("strange"), "strange", "fsspec"),
    ],
)
def test_what_clients_raise_is_said_once_with_its_remedy(error: Exception, problem: str, remedy: str) -> None:
    with pytest.raises(MeasureError) as caught, refused("s3://bucket"):
        raise error
    assert caught.value.problem.startswith("storage.path: s3://bucket: ")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2
