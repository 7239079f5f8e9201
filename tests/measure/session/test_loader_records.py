"""What is recorded of batches out of the ordinary: their keys, their samples, the slowest of them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.analyse.ledger.making import read_stages, with_state
from pipeprof.record.reader import load
from pipeprof.timeline import read_timeline
from tests.measure.session import loader_cases as cases

PAUSE_S = 0.05


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load(out).table(table).to_pylist()
    return found


def counts(out: Path, stage: str) -> int:
    return sum(row["count"] for row in rows(out, "stages") if row["stage"] == stage)


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"batch_size": None}, 10),
        ({"batch_size": 2}, 6),  # two workers with five samples each: 2, 2, 1
        ({"batch_size": 2, "drop_last": True}, 4),
    ],
    ids=["no batches", "a last one that is small", "a last one that is dropped"],
)
def test_workers_that_persist_begin_each_epoch_afresh(
    options: dict[str, Any], batches: int, tmp_path: Path
) -> None:
    """The end of an iterable set is found inside a batch, which then is none."""
    loader = DataLoader(cases.Stream(10), num_workers=2, persistent_workers=True, **options)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in range(3):
            assert len(list(loader)) == batches
            time.sleep(PAUSE_S)
    made, steps = rows(tmp_path / "run", "batches"), rows(tmp_path / "run", "steps")
    assert all(row["finish_ns"] is not None for row in made)
    keys = Counter((row["epoch"], row["seq"]) for row in made)
    assert set(keys.values()) == {1}
    assert Counter(epoch for epoch, _ in keys) == dict.fromkeys(range(3), batches)
    assert sorted((row["epoch"], row["seq"]) for row in steps) == sorted(keys)
    for epoch in range(2):
        ended_ns = max(row["finish_ns"] for row in made if row["epoch"] == epoch)
        began_ns = min(row["start_ns"] for row in made if row["epoch"] == epoch + 1)
        assert began_ns - ended_ns >= PAUSE_S * 1e9, "no worker made a batch in the pause"
    if "drop_last" not in options:
        assert counts(tmp_path / "run", "getitem") == 30


def test_one_stream_iterated_twice_at_once(tmp_path: Path) -> None:
    loader = DataLoader(cases.Stream(4), batch_size=None)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert len(list(zip(loader, loader, strict=True))) == 4
    keys = {(row["epoch"], row["seq"]) for row in rows(tmp_path / "run", "batches")}
    assert keys == {(epoch, seq) for epoch in (0, 1) for seq in range(4)}
    assert keys == {(row["epoch"], row["seq"]) for row in rows(tmp_path / "run", "steps")}


class OfAnyKind(Dataset[Any]):
    """Takes whatever a sampler gives."""

    def __getitem__(self, index: Any) -> Any:
        return torch.zeros(1)


class AtOnce(OfAnyKind):
    def __getitems__(self, indices: Any) -> Any:
        return [torch.zeros(1) for _ in indices]


@pytest.mark.parametrize("dataset", [OfAnyKind, AtOnce])
@pytest.mark.parametrize(
    "indices",
    [np.arange, torch.arange, range, lambda n: iter(range(n))],
    ids=["arrays", "tensors", "ranges", "iterators"],
)
def test_batches_of_indices_that_are_no_lists(indices: Any, dataset: Any, tmp_path: Path) -> None:
    loader = DataLoader(dataset(), batch_sampler=[indices(3), indices(2)])
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert [len(batch) for batch in loader] == [3, 2]
    assert [row["samples"] for row in rows(tmp_path / "run", "batches")] == [3, 2]
    assert [row["samples"] for row in rows(tmp_path / "run", "steps")] == [3, 2]
    assert counts(tmp_path / "run", "getitem") == 5


@pytest.mark.parametrize(
    ("asked", "samples"),
    [(7, 1), (np.int64(7), 1), (torch.tensor(7), 1), ("a key", 1), (torch.arange(3), 3), ([1, 2], 2)],
    ids=str,
)
def test_without_batches_one_index_is_one_sample(asked: Any, samples: int, tmp_path: Path) -> None:
    loader = DataLoader(OfAnyKind(), batch_size=None, sampler=[asked])
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert len(list(loader)) == 1
    assert [row["samples"] for row in rows(tmp_path / "run", "batches")] == [samples]


@pytest.mark.parametrize("options", [{}, {"snapshot_every_n_steps": 3}], ids=["into any loader", "as saved"])
def test_a_stateful_loader_that_skips_to_where_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    """It begins at the last snapshot, and its constructor takes the batches that the loop has had since."""

    def loader(**more: Any) -> StatefulDataLoader[Any]:
        return StatefulDataLoader(cases.Squares(40), batch_size=4, num_workers=1, **more)

    first = loader(snapshot_every_n_steps=3)
    iterator = iter(first)
    for _ in range(5):
        next(iterator)
    state = first.state_dict()
    del iterator
    with pipeprof.profile(loader(**options), out=tmp_path / "run") as second:
        second.load_state_dict(state)
        left = [int(batch[1][0]) for batch in second]
    assert left == [(4 * number) ** 2 for number in range(5, 10)]
    steps, made = rows(tmp_path / "run", "steps"), rows(tmp_path / "run", "batches")
    assert [row["seq"] for row in steps] == [2, 3, 4, 5, 6]
    finish_ns = {row["seq"]: row["finish_ns"] for row in made}
    assert len(finish_ns) == 7
    assert all(row["take_ns"] >= finish_ns[row["seq"]] for row in steps)


class Saved(cases.Squares):
    """A data set whose state takes long to gather."""

    def state_dict(self) -> dict[str, int]:
        time.sleep(0.01)
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


def test_the_state_that_travels_with_a_batch_is_a_stage_of_it(tmp_path: Path) -> None:
    loader = StatefulDataLoader(Saved(24), batch_size=4, num_workers=2, snapshot_every_n_steps=1)
    with pipeprof.profile(loader, out=tmp_path / "run") as observed:
        assert len(list(observed)) == 6
    made = [row for row in rows(tmp_path / "run", "stages") if row["stage"] == "stage:state_dict"]
    assert len({row["seq"] for row in made}) == len(made) == 6
    assert all(row["wall_ns"] >= 10_000_000 for row in made)
    run = load(tmp_path / "run")
    timeline = read_timeline(run)
    stages = read_stages(run, timeline)
    later = with_state(timeline, stages).finish_ns - timeline.finish_ns
    assert (later >= 10_000_000).sum() == 6
    assert (timeline.finish_ns + later <= timeline.pickled_ns).all()


class OneSlow(Dataset[Any]):
    """Sample 5 takes long."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: Any) -> int:
        time.sleep(0.05 if index == 5 else 0.0002)
        return 0


class OneSlowInAStream(cases.Stream):
    def __iter__(self) -> Iterator[Any]:
        for index in range(8):
            yield OneSlow()[index]


@pytest.mark.parametrize("detail", ["batch", "sample"])
@pytest.mark.parametrize(
    ("make", "index"),
    [
        (int, 5),
        (np.int64, 5),
        (torch.tensor, 5),
        (float, None),  # no number to a record
    ],
    ids=["int", "numpy", "torch", "float"],
)
def test_the_slowest_sample(make: Any, index: int | None, detail: str, tmp_path: Path) -> None:
    loader = DataLoader(OneSlow(), batch_size=4, sampler=[make(number) for number in range(8)])
    with pipeprof.profile(loader, out=tmp_path / "run", detail=detail):
        assert len(list(loader)) == 2
    _, made = rows(tmp_path / "run", "batches")
    assert made["slowest_index"] == index
    assert 0.05e9 <= made["slowest_ns"] <= made["finish_ns"] - made["start_ns"]


@pytest.mark.parametrize("detail", ["batch", "sample"])
@pytest.mark.parametrize("index", [2**63, -(2**70)])
def test_an_index_that_no_record_can_hold(index: int, detail: str, tmp_path: Path) -> None:
    loader = DataLoader(OfAnyKind(), sampler=[index])
    with pipeprof.profile(loader, out=tmp_path / "run", detail=detail):
        assert len(list(loader)) == 1
    (made,) = rows(tmp_path / "run", "batches")
    assert made["slowest_index"] is None
    assert made["slowest_ns"] is not None


def test_the_slowest_sample_of_a_stream_has_no_index(tmp_path: Path) -> None:
    with pipeprof.profile(DataLoader(OneSlowInAStream(), batch_size=4), out=tmp_path / "run") as loader:
        assert len(list(loader)) == 2
    _, made = rows(tmp_path / "run", "batches")
    assert made["slowest_index"] is None
    assert 0.05e9 <= made["slowest_ns"] <= made["finish_ns"] - made["start_ns"]


def sparse(samples: list[Any]) -> Any:
    return torch.eye(2).to_sparse()


def holds_itself(samples: list[Any]) -> Any:
    batch: list[Any] = [torch.zeros(2)]
    batch.append(batch)
    return batch


class NoSize(torch.Tensor):
    @property
    def nbytes(self) -> int:
        raise NotImplementedError


def own_tensor(samples: list[Any]) -> Any:
    return torch.zeros(2).as_subclass(NoSize)


@pytest.mark.parametrize("collate", [sparse, holds_itself, own_tensor])
def test_batches_without_a_size(collate: Any, tmp_path: Path) -> None:
    loader = DataLoader(OneSlow(), batch_size=4, collate_fn=collate)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert [type(batch) for batch in loader] == [type(collate([]))] * 2
    made = rows(tmp_path / "run", "batches")
    assert [(row["bytes"], row["finish_ns"] is not None) for row in made] == [(None, True)] * 2


def test_batches_that_are_ready(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(24), batch_size=4, num_workers=1, prefetch_factor=2)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            time.sleep(PAUSE_S)  # the worker gets ahead, as far as it may
    steps = rows(tmp_path / "run", "steps")
    assert [row["ready_batches"] for row in steps][1:] == [2, 2, 2, 2, 1]


class Large(Dataset[Any]):
    """Batches of 4 MB, put together by torch itself or by a function of the user's."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1 << 17,), float(index))


def stacked_by_hand(samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(samples).reshape(len(samples), -1)


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of a thread")
@pytest.mark.parametrize(
    ("workers", "collate", "is_fresh"),
    [(0, None, False), (1, None, True), (1, stacked_by_hand, False)],
    ids=["no worker", "a worker", "a worker with a collate function"],
)
def test_whether_a_batch_was_put_into_fresh_memory(
    workers: int, collate: Any, is_fresh: bool, tmp_path: Path
) -> None:
    """A worker collates into shared memory; what the user's function makes is moved there by another thread.

    The C library keeps memory only when it has seen it freed a few times.
    """
    loader = DataLoader(Large(), batch_size=8, num_workers=workers, collate_fn=collate)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for batch in loader:
            del batch
    made = rows(tmp_path / "run", "batches")
    touched = [row["touched_bytes"] for row in made[4:]]
    assert (np.median(touched) >= 0.5 * made[0]["bytes"]) == is_fresh, touched
    if workers:
        assert all(row["handover_cpu_ns"] >= 0 for row in made[1:])
        assert all(row["next_cpu_ns"] > 0 for row in rows(tmp_path / "run", "steps"))
