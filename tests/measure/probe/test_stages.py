"""Stages that are found by themselves in torchvision pipelines, and what they leave as it was."""

from __future__ import annotations

import builtins
import functools
import io
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from torchvision import io as tv_io
from torchvision.transforms import v2

import pipeprof
from pipeprof.measure.probe import files
from pipeprof.record.reader import load
from tests.timing import Timing

V1 = [transforms.Resize(16), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
V2 = [v2.Resize(16), v2.RandomHorizontalFlip(), v2.PILToTensor()]
NAMES = {
    "v1": ["transform:Resize", "transform:RandomHorizontalFlip", "transform:ToTensor"],
    "v2": ["transform:Resize", "transform:RandomHorizontalFlip", "transform:PILToTensor"],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "images" / "class"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    return tmp_path / "images"


def batches(loader: Any) -> list[Any]:
    torch.manual_seed(3)
    return [[part.tolist() for part in batch] for batch in loader]


def totals(out: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in load(out).table("stages").to_pylist():
        into = found.setdefault(row["stage"], {"wall_ns": 0, "count": 0, "bytes": 0})
        for name in into:
            into[name] += row[name] or 0
    return found


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_image_folder(version: str, workers: int, images: Path, tmp_path: Path, timing: Timing) -> None:
    compose: Any = transforms.Compose(V1) if version == "v1" else v2.Compose(V2)
    loader = DataLoader(
        datasets.ImageFolder(str(images), transform=compose), batch_size=4, num_workers=workers
    )
    plain = batches(loader)
    before = builtins.open, io.open, transforms.Compose.__call__, v2.Compose.forward, Image.Image.convert
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert batches(loader) == plain
    after = builtins.open, io.open, transforms.Compose.__call__, v2.Compose.forward, Image.Image.convert
    assert after == before, "everything is put back"
    found = totals(tmp_path / "run")
    assert set(found) == {"read", "decode", "getitem", "collate", *NAMES[version]}
    assert found["read"]["bytes"] == sum(path.stat().st_size for path in images.rglob("*.jpg"))
    assert all(found[name]["count"] == 8 for name in NAMES[version])
    made = load(tmp_path / "run").table("batches").to_pylist()
    batch_ns = sum(row["finish_ns"] - row["start_ns"] for row in made)
    preempted_ns = sum(row["runq_ns"] for row in made)
    stage_ns = sum(each["wall_ns"] for each in found.values())
    assert stage_ns <= batch_ns
    with timing.compared():
        assert batch_ns - stage_ns <= 0.1 * batch_ns + preempted_ns, "the stages are what the batch took"


class OwnReaders(Dataset[Any]):
    """Files opened in other ways than ImageFolder's."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))
        self.arrays = folder / "array.npy"
        np.save(self.arrays, np.arange(1000))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        path = self.paths[index]
        size = len(path.read_bytes()) + len(path.open("rb").read())
        with open(path, "rb", buffering=0) as raw:  # noqa: PTH123 - as users write it
            size += len(raw.read())
        assert np.asarray(Image.open(path)).shape == (64, 64, 3)
        assert tv_io.read_image(str(path)).shape == (3, 64, 64)
        assert int(np.load(self.arrays).sum()) == 499_500
        return size


def test_other_ways_to_read(images: Path, tmp_path: Path) -> None:
    loader = DataLoader(OwnReaders(images), batch_size=4)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        sizes = [int(size) for batch in loader for size in batch]
    files = [path.stat().st_size for path in sorted(images.rglob("*.jpg"))]
    assert sizes == [3 * size for size in files]
    found = totals(tmp_path / "run")
    assert found["read"]["bytes"] >= 5 * sum(files) + 8 * 1000 * 8
    assert found["decode"]["count"] >= 16


def test_writing_and_text_are_left_alone(tmp_path: Path) -> None:
    class Notes(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            path = tmp_path / f"{index}.txt"
            path.write_text("two words")
            with open(path) as file:  # noqa: PTH123 - as users write it
                return len(file.read().split())

    loader = DataLoader(Notes())
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert [int(batch) for batch in loader] == [2, 2]
    assert "read" not in totals(tmp_path / "run")


def double(value: float) -> float:
    return 2 * value


def add(number: float, value: float) -> float:
    return number + value


class Halves:
    def __call__(self, value: float) -> float:
        return value / 2

    def again(self, value: float) -> float:
        return value / 2


@pytest.mark.parametrize("detail", ["batch", "sample"])
def test_functions_among_the_transforms_have_their_own_names(detail: str, tmp_path: Path) -> None:
    steps = [double, functools.partial(add, 1), Halves(), Halves().again, lambda value: value + 1, math.sqrt]

    class Numbers(Dataset[Any]):
        transform = transforms.Compose(steps)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> float:
            return float(self.transform(6.0 + 0 * index))

    with pipeprof.profile(DataLoader(Numbers()), out=tmp_path / "run", detail=detail) as loader:
        assert [float(batch) for batch in loader] == [math.sqrt(13 / 4 + 1)] * 2
    found = {name: each["count"] for name, each in totals(tmp_path / "run").items() if "transform" in name}
    names = ("double", "add", "Halves", "again", "<lambda>", "sqrt")
    assert found == {f"transform:{name}": 2 for name in names}


def test_a_transform_that_fails_counts_once(tmp_path: Path) -> None:
    """Its dataset goes on, with what the spans inside it took taken out of `__getitem__`, and no more."""

    def refuses(value: float) -> float:
        with pipeprof.stage("looking"):
            time.sleep(0.05)
        raise ValueError

    class Tries(Dataset[Any]):
        transform = transforms.Compose([double, refuses])

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            with suppress(ValueError):
                self.transform(1.0)
            return 0

    with pipeprof.profile(DataLoader(Tries()), out=tmp_path / "run") as loader:
        assert len(list(loader)) == 1
    found = totals(tmp_path / "run")
    assert found["stage:looking"]["wall_ns"] >= 0.05e9 > found["getitem"]["wall_ns"]


READERS: dict[str, Callable[[Path], Any]] = {
    "binary": lambda path: path.read_bytes(),
    "text": lambda path: path.read_text(errors="ignore"),
    "with a descriptor": lambda path: os.fdopen(os.open(path, os.O_RDONLY), "rb").close(),
    "both ways": lambda path: path.open("r+b").close(),
    "torchvision": lambda path: tv_io.read_image(str(path)),
    "numpy": lambda path: np.fromfile(path, np.uint8),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("counted", [False, True])
def test_bytes_of_a_device_that_the_kernel_does_not_count_are_not_observed(
    counted: bool, read: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "counts_device_reads", lambda device: counted)

    class Files(Dataset[Any]):
        paths = sorted(images.rglob("*.jpg"))[:2]

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            READERS[read](self.paths[index])
            return 0

    with pipeprof.profile(DataLoader(Files()), out=tmp_path / "run") as loader:
        assert len(list(loader)) == 2
    device = [row["device_bytes"] is not None for row in load(tmp_path / "run").table("batches").to_pylist()]
    assert device == [counted] * 2


def test_a_file_that_is_only_written_says_nothing_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "counts_device_reads", lambda device: False)

    class Writes(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            return (tmp_path / "log.txt").write_text("seen")

    with pipeprof.profile(DataLoader(Writes()), out=tmp_path / "run") as loader:
        assert len(list(loader)) == 1
    assert load(tmp_path / "run").table("batches")["device_bytes"].null_count == 0
