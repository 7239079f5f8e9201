"""Facts about data sets are read off their code, and none of it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data as torch_data
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info

from pipeprof.analyse.analysis import load
from pipeprof.measure.probe.counting.files_read import MOST_SLOW, FilesRead
from pipeprof.measure.session.dataset_facts import file_of, has_set_epoch, splits_stream
from pipeprof.measure.session.session import Session
from pipeprof.record.meta import ReadingMeta, SlowFileMeta
from tests.measure.session import loader_cases as cases


class Unsplit(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(9))


class ByModule(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        info = torch_data.get_worker_info()
        return iter(range(info.id, 9, info.num_workers))


def part_of_worker(items: Any) -> Any:
    info = get_worker_info()
    return items[info.id :: info.num_workers]


class ByFunction(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        def numbers() -> Iterator[int]:
            yield from part_of_worker(list(range(9)))

        return numbers()


class Pipeline(IterableDataset[int]):
    def __init__(self, *stages: Callable[[Any], Any]) -> None:
        self.stages = list(stages)

    def __iter__(self) -> Iterator[int]:
        items: Any = list(range(9))
        for stage in self.stages:
            items = stage(items)
        return iter(items)


class Overridden(ByModule):
    def __iter__(self) -> Iterator[int]:
        return iter(range(9))


class Extended(ByModule):
    def __iter__(self) -> Iterator[int]:
        return (2 * item for item in super().__iter__())


class Wrapper(IterableDataset[int]):
    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[int]:
        return iter(self.source)


class Guarded(IterableDataset[int]):
    """Refuses to be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"was asked for {name}")

    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("was iterated")


class Epochs(Dataset[int]):
    def set_epoch(self, epoch: int) -> None:
        raise RuntimeError("was called")


def by_worker_number(worker: int) -> None: ...


@pytest.mark.parametrize(
    ("make", "splits"),
    [
        (Unsplit, False),
        (ByModule, True),
        (ByFunction, True),
        (Pipeline, False),
        (Overridden, False),
        (Extended, True),
        (lambda: Pipeline(sorted, part_of_worker), True),
        (lambda: Wrapper(Unsplit()), False),
        (lambda: Wrapper(ByModule()), True),
        (Guarded, False),
        (cases.Stream, True),
        (cases.Squares, None),
    ],
)
def test_streams_that_look_for_their_worker(make: Callable[[], Any], splits: bool | None) -> None:
    assert splits_stream(make()) is splits


def test_a_worker_init_fn_may_split_the_stream() -> None:
    assert splits_stream(Unsplit(), cases.tell_dataset) is True
    assert splits_stream(Unsplit(), by_worker_number) is None


def test_data_sets_that_are_told_of_epochs() -> None:
    assert has_set_epoch(Epochs()) is True
    assert has_set_epoch(Unsplit()) is False
    assert has_set_epoch(Guarded()) is False
    assert has_set_epoch([1, 2]) is False


def test_datasets_of_the_library() -> None:
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"x": [1, 2]}).to_iterable_dataset()
    assert has_set_epoch(stream) is True
    assert splits_stream(stream.with_format("torch")) is not False


class Folder(Dataset[int]):
    """Keeps its files as torchvision's folders do; one of them is slow."""

    def __init__(self, count: int = 8) -> None:
        self.classes = ["cats", "dogs"]
        self.samples = [(f"cats/{i}.jpg", 0) for i in range(count)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        time.sleep(0.05 if index == 5 else 0.002)
        return index


class Paths(Folder):
    def __init__(self) -> None:
        self.samples = []
        self.paths = [Path("a.npy"), Path("b.npy")]


@pytest.mark.parametrize(
    ("dataset", "index", "count", "file"),
    [
        (Folder(), 3, 8, "cats/3.jpg"),
        (Subset(Folder(), [7, 2]), 1, 2, "cats/2.jpg"),
        (Paths(), 1, 2, "b.npy"),
        (Folder(), 8, 8, None),
        (Folder(), 3, 9, None),
        ([1, 2], 0, 2, None),
        (None, 0, None, None),
    ],
)
def test_the_file_of_a_sample(dataset: Any, index: int, count: int | None, file: str | None) -> None:
    assert file_of(dataset, index, count) == file


def test_the_slowest_samples_have_their_files(tmp_path: Path) -> None:
    with Session(tmp_path / "run", files=True) as session:
        loader = DataLoader(Folder(), batch_size=2, num_workers=1)
        session.observe(loader)
        for _ in range(2):
            assert len(list(loader)) == 4
    run = load(tmp_path / "run")
    slowest = run.run.meta.reading.slowest
    assert (slowest[0].sample, slowest[0].path) == (5, "cats/5.jpg") and len(slowest) <= MOST_SLOW
    assert run.slowest(1)[0].file == "cats/5.jpg"


def test_a_bounded_number_of_slow_files_is_kept() -> None:
    files = FilesRead()
    for i in range(3 * MOST_SLOW):
        assert files.is_slow(i + 1)
        files.add_slow(SlowFileMeta(0, i % (2 * MOST_SLOW), i + 1, f"{i}"))
    kept = files.entered(ReadingMeta()).slowest
    assert len(kept) == MOST_SLOW and kept[0].took_ns == 3 * MOST_SLOW
    assert not files.is_slow(1)
