"""Shards that libraries read from: on the real ones where they are installed, and on modules of the same
names and methods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

import pipeprof
from pipeprof.record.reader import load


def shards_of(loader: DataLoader[Any], out: Path) -> list[str | None]:
    with pipeprof.profile(loader, out=out):
        for _ in loader:
            pass
    return load(out).table("batches")["shard"].to_pylist()


class PyTreeLoader:
    """As in litdata 0.2.76."""

    def load_item_from_chunk(
        self, index: int, chunk_index: int, chunk_filepath: str, begin: int, filesize_bytes: int
    ) -> int:
        return index


class Reader:
    """As in Mosaic Streaming 0.13: a shard of a local copy, with its split and its raw file."""

    def __init__(self, file: str, split: str = "train") -> None:
        self.split, self.raw_data = split, SimpleNamespace(basename=file)

    def get_item(self, idx: int) -> int:
        return idx


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (
        ("litdata.streaming.item_loader", PyTreeLoader),
        ("streaming.base.format.base.reader", Reader),
    ):
        module = ModuleType(name)
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("made_up")
def test_a_batch_has_the_shard_of_its_last_sample(tmp_path: Path) -> None:
    class Both(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            lit, first, second = PyTreeLoader(), Reader("shard.00000.mds"), Reader("s.mds", split="")
            for i in range(4):
                yield lit.load_item_from_chunk(i, i // 2, f"/cache/data/chunk-0-{i // 2}.bin", 0, 9)
            for reader in (first, second):
                for i in range(2):
                    yield reader.get_item(i)

    assert shards_of(DataLoader(Both(), batch_size=2), tmp_path / "run") == [
        "data/chunk-0-0.bin",
        "data/chunk-0-1.bin",
        "train/shard.00000.mds",
        "s.mds",
    ]
    assert PyTreeLoader.load_item_from_chunk.__qualname__ == "PyTreeLoader.load_item_from_chunk", "put back"


def test_litdata(tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    from litdata import StreamingDataset
    from litdata.streaming.cache import Cache

    cache = Cache(str(tmp_path / "data"), chunk_size=16)
    for number in range(64):
        cache[number] = {"number": number, "bytes": bytes(500)}
    cache.done()
    cache.merge()
    loader = DataLoader(StreamingDataset(str(tmp_path / "data"), shuffle=False), batch_size=8)
    assert shards_of(loader, tmp_path / "run") == [f"data/chunk-0-{n // 2}.bin" for n in range(8)]


def test_mosaic_streaming(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming")
    with streaming.MDSWriter(
        out=str(tmp_path / "data"), columns={"bytes": "bytes", "number": "int"}, size_limit=9_000
    ) as writer:
        for number in range(64):
            writer.write({"bytes": bytes(500), "number": number})
    data = streaming.StreamingDataset(local=str(tmp_path / "data"), shuffle=False, batch_size=8)
    shards = shards_of(DataLoader(data, batch_size=8), tmp_path / "run")
    assert shards == sorted(str(shard) for shard in shards)
    assert len(set(shards)) > 3
    assert all(str(shard).endswith(".mds") for shard in shards)


def test_webdataset(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    for shard in range(3):
        with wds.TarWriter(str(tmp_path / f"{shard}.tar")) as writer:
            for number in range(16):
                writer.write({"__key__": f"{shard}-{number}", "bytes": bytes(500)})
    data = wds.WebDataset([str(tmp_path / f"{shard}.tar") for shard in range(3)], shardshuffle=False)
    loader = DataLoader(data.map(lambda sample: len(sample["bytes"])), batch_size=8)
    shards = shards_of(loader, tmp_path / "run")
    assert shards == [f"{tmp_path.name}/{n // 2}.tar" for n in range(6)]
