from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from pipeprof.errors import MeasureError
from pipeprof.measure.host import page_cache
from pipeprof.measure.probe.changes.arguments import Changes
from pipeprof.measure.probe.changes.construct import Construction
from pipeprof.measure.probe.changes.fixes import read_fixes


class Threads:
    """Data set that asks for threads of its own, and tells how many its worker has."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[int, int, int, str]:
        torch.set_num_threads(7)
        sharing = torch.multiprocessing.get_sharing_strategy()
        return torch.get_num_threads(), gc.get_freeze_count(), len(os.sched_getaffinity(0)), sharing


def seen_in_worker() -> tuple[int, int, int, str]:
    loader = DataLoader(Threads(), batch_size=None, num_workers=1)  # type: ignore[arg-type]
    seen: tuple[int, int, int, str] = next(iter(loader))
    return seen


@pytest.fixture
def nothing_frozen() -> Iterator[None]:
    had = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if had:
        gc.freeze()


@pytest.mark.usefixtures("nothing_frozen")
def test_workers_have_what_is_tried_and_the_process_has_it_back() -> None:
    before = torch.get_num_threads(), gc.get_freeze_count(), torch.multiprocessing.get_sharing_strategy()
    plain = seen_in_worker()
    assert plain[0] == 7
    fixes = read_fixes(["one-thread", "gc-freeze", "affinity", "file-system-sharing"])
    said = {word: fix.begin() for word, fix in fixes}
    try:
        threads, frozen, cores, sharing = seen_in_worker()
    finally:
        ended = {word: fix.end() for word, fix in reversed(fixes)}
    assert (threads, sharing) == (1, "file_system")
    assert frozen > 1000 and cores >= plain[2]
    assert all(said.values()) and all(ended.values())
    after = torch.get_num_threads(), gc.get_freeze_count(), torch.multiprocessing.get_sharing_strategy()
    assert after == before
    assert seen_in_worker()[0] == 7


def test_files_are_read_into_memory_and_dropped_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / "large.bin"
    path.parent.mkdir()
    path.write_bytes(os.urandom(2**20))
    page_cache.evict([path])
    if page_cache.residency([path]).share != 0.0:
        pytest.skip("this file system keeps its files in memory")
    [(_, fix)] = read_fixes([f"ram={path.parent}"])
    assert fix.begin() == "100% of 1 file in the page cache"
    assert page_cache.residency([path]).share == 1.0
    assert fix.end() == "100% was still there at the end; 1 file that had not been there before dropped"
    assert page_cache.residency([path]).share == 0.0


def test_what_does_not_fit_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    monkeypatch.setattr("pipeprof.measure.probe.changes.fixes.free_memory_bytes", lambda: 1000)
    [(_, fix)] = read_fixes([f"ram={tmp_path}"])
    with pytest.raises(MeasureError, match=r"holds 1.00 KB, more than the 900 B"):
        fix.begin()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one-tread", "did you mean one-thread?"),
        ("ram", "--try ram=DIR"),
        ("ram=nowhere", "no directory"),
        ("shards", "cannot be tried without an edit"),
    ],
)
def test_what_cannot_be_tried(text: str, said: str) -> None:
    with pytest.raises(MeasureError) as raised:
        read_fixes([text])
    assert said in str(raised.value)


class Counted:
    """Data set with an attribute of its own that counts what it makes."""

    classes = ("cat", "dog")

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        self.made += 1
        return index * 10


def test_samples_are_kept_for_later_passes() -> None:
    [(_, fix)] = read_fixes(["cached"])
    construction = Construction(Changes({}), _refuse)
    construction.begin()
    said = fix.begin()
    dataset = Counted()
    loader, other = (DataLoader(dataset, batch_size=4) for _ in range(2))  # type: ignore[arg-type]
    streamed = DataLoader(Stream(), batch_size=4)
    ended = fix.end()
    passes = [[int(value) for batch in each for value in batch] for each in (loader, other, loader)]
    construction.end()
    assert passes == [[0, 10, 20, 30, 40, 50, 60, 70]] * 3
    assert dataset.made == 8
    assert loader.dataset is other.dataset and loader.dataset.classes == ("cat", "dog")  # type: ignore[attr-defined]
    assert isinstance(streamed.dataset, Stream)
    assert "no training" in said and ended == "kept 0 of 8 samples (0 B)"
    assert DataLoader(dataset).dataset is dataset  # type: ignore[arg-type]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def _refuse(error: MeasureError) -> NoReturn:
    raise error
