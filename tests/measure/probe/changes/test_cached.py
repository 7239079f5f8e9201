"""`pipeprof.cached`: samples made once, shared by the workers, bounded, and nothing left behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import pipeprof
from pipeprof.errors import DataError
from pipeprof.measure.probe.changes import cached as module
from pipeprof.measure.probe.changes.cached import Cached, Place, cached

COUNT, SAMPLE = 24, 1000


class Logged(Dataset[torch.Tensor]):
    """Writes a line for each sample that it makes."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> torch.Tensor:
        with self.log.open("a") as log:
            log.write(f"{index}\n")
        return torch.full((SAMPLE,), index, dtype=torch.uint8)


def made(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def epoch(dataset: Dataset[Any], context: str | None) -> list[int]:
    """The first value of each sample; None: no workers."""
    workers = 2 if context else 0
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=context)
    return [int(value) for batch in loader for value in batch[:, 0]]


@pytest.mark.parametrize("where", ["ram", "disk"])
@pytest.mark.parametrize("context", [None, "fork"])
def test_each_sample_is_made_once_for_all_workers_and_epochs(
    tmp_path: Path, where: Place, context: str | None
) -> None:
    log, place = tmp_path / "log", tmp_path / "place"
    place.mkdir()
    kept = cached(Logged(log), where, 100 * COUNT * SAMPLE, directory=place)
    for _ in range(2):
        assert epoch(kept, context) == list(range(COUNT))
    assert sorted(made(log)) == list(range(COUNT))
    assert kept.kept.samples == COUNT and kept.kept.bytes >= COUNT * SAMPLE
    assert list(place.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["ram", pytest.param("disk", marks=pytest.mark.heavy)])
def test_a_spawned_worker_shares_what_the_main_process_made(tmp_path: Path, where: Place) -> None:
    log = tmp_path / "log"
    kept = cached(Logged(log), where, 100 * COUNT * SAMPLE, directory=tmp_path)
    for index in range(0, COUNT, 2):
        assert int(kept[index][0]) == index
    loader = DataLoader(kept, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert [int(value) for batch in loader for value in batch[:, 0]] == list(range(COUNT))
    assert sorted(made(log)) == list(range(COUNT)) and kept.kept.samples == COUNT


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = descriptors()
    kept = cached(Logged(tmp_path / "log"), "disk", 10**6, directory=tmp_path)
    assert len(kept[3]) == SAMPLE
    del kept
    assert descriptors() == before


def test_what_does_not_fit_is_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    kept = cached(Logged(log), "ram", 3 * SAMPLE)
    assert [int(kept[i][0]) for i in (0, 1, 2, 3, 0, 3)] == [0, 1, 2, 3, 0, 3]
    assert 1 <= kept.kept.samples <= 2 and kept.kept.bytes <= 3 * SAMPLE == kept.kept.room_bytes
    assert made(log).count(0) == 1 and made(log).count(3) == 2


def test_what_is_random_stays_random(tmp_path: Path) -> None:
    kept = cached(Logged(tmp_path / "log"), "ram", transform=lambda sample: (int(sample[0]), random.random()))
    (first, one), (again, two) = kept[-1], kept[COUNT - 1]
    assert (first, again) == (COUNT - 1, COUNT - 1) and one != two
    with pytest.raises(IndexError):
        kept[COUNT]


def test_the_size_is_estimated_and_refused_where_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(pipeprof.cached(Logged(tmp_path / "log")), Cached)
    monkeypatch.setattr(module, "free_memory_bytes", lambda: COUNT * SAMPLE)
    with pytest.raises(DataError, match=r"an estimated .* is free in memory"):
        cached(Logged(tmp_path / "log"), "ram")
    with pytest.raises(DataError, match="the samples take"):
        cached(Logged(tmp_path / "log"), "disk", 10**18, directory=tmp_path)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


@pytest.mark.parametrize(
    ("dataset", "arguments", "said"),
    [
        (Stream(), {}, "no samples by number"),
        ([1, 2], {"where": "tape"}, 'choose "ram" or "disk"'),
        ([1, 2], {"bytes": 0}, "above 0"),
        ([1, 2], {"where": "disk", "directory": "/nowhere"}, "directory that exists"),
    ],
)
def test_what_cannot_be_kept_is_one_clear_error(dataset: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as raised:
        cached(dataset, **arguments)
    assert said in str(raised.value)
