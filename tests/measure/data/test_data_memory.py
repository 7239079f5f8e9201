"""Data sets in RAM: the same samples, one copy for all workers, refused where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.errors import DataError
from pipeprof.measure.data import held as memory
from pipeprof.measure.data.held import HeldItems
from pipeprof.measure.data.open import dataset_files, open_dataset
from pipeprof.measure.probe import spans as recorder
from pipeprof.measure.storage.real import MemoryStorage
from pipeprof.scenario import Scenario

STORAGE = MemoryStorage("ram")


def scenario(tier: str, format_: str = "jpeg_folder", keep: str = "encoded") -> Scenario:
    data = {"format": format_, "samples": 60, "sample_bytes": 8000, "crop": 32}
    return Scenario(name="x", data=data, storage={"tier": tier, "keep": keep})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path_factory.getbasetemp() / "pipeprof-cache"))


@pytest.mark.parametrize("tier", ["ram", "pinned"])
@pytest.mark.parametrize(
    ("format_", "keep"),
    [("jpeg_folder", "encoded"), ("jpeg_folder", "decoded"), ("tensor_files", "encoded"),
     ("tensor_files", "decoded"), ("tar_shards", "encoded")],
)  # fmt: skip
def test_samples_from_memory_are_those_of_the_files(tier: str, format_: str, keep: str) -> None:
    def samples(tier: str, keep: str) -> list[tuple[torch.Tensor, int]]:
        torch.manual_seed(3)
        loader = DataLoader(open_dataset(scenario(tier, format_, keep), STORAGE), batch_size=None)
        return [(image.clone(), label) for image, label in loader]

    files, held = samples("ssd", "encoded"), samples(tier, keep)
    assert len(files) == len(held) == 60
    for (image, label), (expected, expected_label) in zip(held, files, strict=True):
        assert torch.equal(image, expected)
        assert label == expected_label


def test_nothing_is_read_from_the_files_once_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(scenario("ram"), STORAGE)
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert len([dataset[i] for i in range(60)]) == 60


class Mapping(NamedTuple):
    """What a process knows of the held memory: see /proc/PID/maps."""

    permissions: str
    image_sum: float


class Probe(Dataset[Mapping]):
    """Reads all samples of a data set and then looks at how this process maps the memory of `inode`."""

    def __init__(self, inner: Dataset[Any], inode: int) -> None:
        self.inner, self.inode = inner, inode

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Mapping:
        total = sum(float(self.inner[i][0].abs().sum()) for i in range(60))
        maps = Path("/proc/self/maps").read_text()
        (permissions,) = re.findall(rf"^\S+ (\S+) \S+ \S+ {self.inode} .*memfd:pipeprof-data", maps, re.M)
        return Mapping(permissions, total)


@pytest.mark.parametrize(
    ("method", "format_", "keep"),
    [
        ("fork", "jpeg_folder", "encoded"),
        ("fork", "jpeg_folder", "decoded"),
        pytest.param("spawn", "tensor_files", "encoded", marks=pytest.mark.slow),  # needs no torchvision
    ],
)
def test_workers_map_the_one_copy(method: str, format_: str, keep: str) -> None:
    dataset = open_dataset(scenario("ram", format_, keep), STORAGE)
    held = dataset._held if keep == "decoded" else dataset.storage._held  # type: ignore[attr-defined]
    inode = Path(held._block.path).stat().st_ino
    loader = DataLoader(Probe(dataset, inode), batch_size=None, num_workers=1, multiprocessing_context=method)
    (there,) = list(loader)
    assert there.permissions[3] == "s"  # shared: what it sees there is the one copy
    assert there.image_sum > 0


def test_a_set_larger_than_the_free_memory_is_refused_with_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> HeldItems:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 500_000)
    monkeypatch.setattr(memory, "SharedBlock", loaded)
    message = r"60 files take 48\d KB of memory, and 500 KB is free \(90% of it may be used\)"
    with pytest.raises(DataError, match=message):
        open_dataset(scenario("ram"), STORAGE)
    with pytest.raises(DataError, match=r"60 decoded images take 2\.\d+ MB"):
        open_dataset(scenario("pinned", keep="decoded"), STORAGE)


def test_a_damaged_file_is_named_while_the_set_is_loaded(tmp_path: Path) -> None:
    source = dataset_files(scenario("ssd"))[0].read_bytes()
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(source if index != 3 else source[:2000])
    own = {"format": "image_folder", "path": str(tmp_path)}
    with pytest.raises(DataError, match=rf"^sample 3 cannot be read: {tmp_path}/3.jpg"):
        open_dataset(Scenario(name="x", data=own, storage={"tier": "ram", "keep": "decoded"}), STORAGE)


def test_shards_cannot_be_kept_decoded() -> None:
    with pytest.raises(DataError, match="tar_shards"):
        open_dataset(scenario("ram", "tar_shards", "decoded"), STORAGE)


def test_a_sample_from_memory_is_one_read_and_one_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    size = dataset_files(scenario("ram"))[4].stat().st_size
    dataset = open_dataset(scenario("ram"), STORAGE)
    spans = []

    @contextmanager
    def listening(name: str = "read") -> Iterator[SimpleNamespace]:
        spans.append((name, record := SimpleNamespace(bytes=None)))
        yield record

    monkeypatch.setattr(recorder, "span", listening)
    monkeypatch.setattr(recorder, "storage_read", listening)
    dataset[4]
    assert [(name, record.bytes) for name, record in spans] == [("read", size), ("decode", None)]
