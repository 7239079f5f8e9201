"""Each pass over a loader has events of its own, whatever the way of iterating and of leaving it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterDataPipe
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases

Rows = list[dict[str, Any]]


class Epoch(NamedTuple):
    """What the run says of one epoch of one loader."""

    loader: int
    epoch: int
    start_ns: int
    end_ns: int | None
    """None where the loop was not seen to leave."""
    ended: str | None
    others: dict[str, int]
    """The other events of it."""
    steps: Rows
    batches: Rows


def epochs_of(run: Path) -> list[Epoch]:
    """Return the epochs of a run by their start. Each has one start, and one end or none."""
    read = load(run)
    by_key: dict[tuple[int, int], dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for table in ("steps", "batches"):
        for row in read.table(table).to_pylist():
            by_key[row["loader"], row["epoch"]][table].append(row)
    for row in read.table("events").to_pylist():
        by_key[row["loader"], row["epoch"]][row["kind"]].append(row)
    epochs = []
    for (loader, epoch), rows in by_key.items():
        steps, batches = rows.pop("steps", []), rows.pop("batches", [])
        assert {kind: len(events) for kind, events in rows.items() if len(events) > 1} == {}
        (start,) = rows.pop("epoch_start")
        (end,) = rows.pop("epoch_end", [{"time_ns": None, "detail": None}])
        others = {kind: event["time_ns"] for kind, (event,) in rows.items()}
        epochs.append(
            Epoch(loader, epoch, start["time_ns"], end["time_ns"], end["detail"], others, steps, batches)
        )
    return sorted(epochs, key=lambda each: each.start_ns)


def check_order(epoch: Epoch) -> None:
    """All that happened in an epoch lies between its start and its end, in order."""
    inside = [*epoch.others.values(), *(row["request_ns"] for row in epoch.steps)]
    inside += [row["take_ns"] for row in epoch.steps]
    assert all(epoch.start_ns <= time_ns for time_ns in inside)
    if epoch.end_ns is not None:
        assert all(time_ns <= epoch.end_ns for time_ns in inside)
    assert all(epoch.start_ns <= row["start_ns"] for row in epoch.batches)
    if "last_request" in epoch.others:
        assert epoch.ended == "exhausted"
        assert all(row["take_ns"] <= epoch.others["last_request"] for row in epoch.steps)
    ready_ns = epoch.others.get("workers_ready", epoch.start_ns)
    assert all(ready_ns <= row["request_ns"] for row in epoch.steps)


def check_overlap(epochs: list[Epoch]) -> None:
    """No epoch of a loader begins before the one before it has ended, or has given its last batch."""
    for loader in {epoch.loader for epoch in epochs}:
        for before, after in pairwise(epoch for epoch in epochs if epoch.loader == loader):
            assert (before.end_ns or before.steps[-1]["take_ns"]) <= after.start_ns


BATCHES = 5


def over(dataset: Any, kind: Any = DataLoader, **options: Any) -> Any:
    """A loader of five batches."""
    return kind(dataset, batch_size=4, **options)


def squares(**options: Any) -> Any:
    return over(cases.Squares(4 * BATCHES), **options)


def stream(**options: Any) -> Any:
    return over(cases.Stream(4 * BATCHES), **options)


def whole(loader: Any) -> None:
    for _ in range(3):
        assert len(list(loader)) == BATCHES


def with_break(loader: Any) -> None:
    for _ in range(3):
        for taken, _ in enumerate(loader):
            if taken == 1:
                break


def by_islice(loader: Any) -> None:
    for _ in range(3):
        assert len(list(islice(loader, 2))) == 2


def with_error(loader: Any) -> None:
    def one_step() -> None:
        for _ in loader:
            raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            one_step()


def by_next(loader: Any) -> None:
    for _ in range(3):
        iterator = iter(loader)
        next(iterator)
        next(iterator)


def left_in_the_middle(loader: Any) -> Any:
    iterator = iter(loader)
    next(iterator)
    return iterator


WAYS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], list[str | None]]] = {
    "no workers": (squares, whole, ["exhausted"] * 3),
    "no workers, break": (squares, with_break, ["dropped"] * 3),
    "no workers, islice": (squares, by_islice, ["dropped"] * 3),
    "no workers, error": (squares, with_error, ["dropped"] * 3),
    "no workers, next": (squares, by_next, [None, None, "dropped"]),
    "no workers, left open": (squares, left_in_the_middle, [None]),
    "workers": (lambda: squares(num_workers=2), whole, ["exhausted"] * 3),
    "workers, break": (lambda: squares(num_workers=2), with_break, ["dropped"] * 3),
    "workers, left open": (lambda: squares(num_workers=1), left_in_the_middle, [None]),
    "out of order": (lambda: squares(num_workers=2, in_order=False), whole, ["exhausted"] * 3),
    "persistent": (lambda: squares(num_workers=2, persistent_workers=True), whole, ["exhausted"] * 3),
    "persistent, break": (
        lambda: squares(num_workers=2, persistent_workers=True),
        with_break,
        [None] * 3,
    ),
    "iterable": (stream, whole, ["exhausted"] * 3),
    "iterable, break": (stream, with_break, ["dropped"] * 3),
    "iterable, own iterator": (
        lambda: DataLoader(cases.OwnIterator(), batch_size=2),
        lambda loader: [list(loader) for _ in range(3)],
        ["exhausted"] * 3,
    ),
    "iterable, workers": (
        lambda: DataLoader(cases.UnevenStream(), batch_size=2, num_workers=2),
        lambda loader: [list(loader) for _ in range(3)],
        ["exhausted"] * 3,
    ),
    "iterable, persistent": (
        lambda: DataLoader(cases.Stream(20), batch_size=2, num_workers=2, persistent_workers=True),
        lambda loader: [list(loader) for _ in range(3)],
        ["exhausted"] * 3,
    ),
    "one by one": (lambda: DataLoader(cases.Squares(5), batch_size=None), whole, ["exhausted"] * 3),
    "stateful": (lambda: squares(kind=StatefulDataLoader), whole, ["exhausted"] * 3),
    "stateful, break": (
        lambda: squares(kind=StatefulDataLoader),
        with_break,
        [None] * 3,
    ),
    "stateful, workers, break": (
        lambda: squares(kind=StatefulDataLoader, num_workers=1),
        with_break,
        [None] * 3,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_iterating(way: str, tmp_path: Path) -> None:
    make, iterate, ended = WAYS[way]
    loader = make()
    with Session(tmp_path / "run") as session:
        session.observe(loader)
        held = iterate(loader)
    del held
    epochs = epochs_of(tmp_path / "run")
    assert [(epoch.epoch, epoch.ended) for epoch in epochs] == list(enumerate(ended))
    for epoch in epochs:
        check_order(epoch)
        assert len(epoch.steps) >= 1
    check_overlap(epochs)
    started = [epoch.epoch for epoch in epochs if "workers_ready" in epoch.others]
    fresh = [0] if loader.persistent_workers else list(range(len(ended)))
    assert started == (fresh if loader.num_workers else []), "a loader without workers starts none"


def test_a_resumed_loader(tmp_path: Path) -> None:
    first = squares(kind=StatefulDataLoader, num_workers=1)
    iterator = iter(first)
    next(iterator)
    next(iterator)
    state = first.state_dict()
    del iterator
    second = squares(kind=StatefulDataLoader, num_workers=1)
    second.load_state_dict(state)
    with pipeprof.profile(second, out=tmp_path / "run"):
        assert len(list(second)) == BATCHES - 2
        assert len(list(second)) == BATCHES
    epochs = epochs_of(tmp_path / "run")
    assert [(epoch.epoch, epoch.ended, len(epoch.steps)) for epoch in epochs] == [
        (0, "exhausted", 3),
        (1, "exhausted", 5),
    ]
    check_overlap(epochs)
    for epoch in epochs:
        check_order(epoch)


def test_two_loaders_in_turn_and_one_in_the_other(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        train, check = (session.observe(squares(num_workers=workers)) for workers in (1, 0))
        for _ in range(2):
            for step, _ in enumerate(train):
                if step == 2:
                    assert len(list(check)) == BATCHES
            assert len(list(check)) == BATCHES
    epochs = epochs_of(tmp_path / "run")
    assert [(epoch.loader, epoch.epoch) for epoch in epochs] == [
        (0, 0), (1, 0), (1, 1), (0, 1), (1, 2), (1, 3),
    ]  # fmt: skip
    assert {epoch.ended for epoch in epochs} == {"exhausted"}
    check_overlap(epochs)
    for epoch in epochs:
        check_order(epoch)
        assert len(epoch.steps) == BATCHES
    outer, inner = epochs[0], epochs[1]
    assert outer.end_ns is not None
    assert inner.end_ns is not None
    assert outer.start_ns < inner.start_ns < inner.end_ns < outer.end_ns


def test_one_loader_iterated_twice_at_once(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.observe(squares())
        assert len(list(zip(loader, loader, strict=True))) == BATCHES
    epochs = epochs_of(tmp_path / "run")
    assert [epoch.epoch for epoch in epochs] == [0, 1]
    for epoch in epochs:
        check_order(epoch)
        assert len(epoch.steps) == BATCHES


class Pipe(IterDataPipe[Any]):
    def __iter__(self) -> Any:
        return iter(range(8))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}], ids=str
)
def test_a_data_pipe(options: dict[str, Any], tmp_path: Path) -> None:
    """Nothing of ours is inside: an epoch is seen to begin by the batch that it gives."""
    with Session(tmp_path / "run") as session:
        loader = session.observe(DataLoader(Pipe(), batch_size=2, **options))
        for _ in range(2):
            assert len(list(loader)) == 4
    epochs = epochs_of(tmp_path / "run")
    assert [(epoch.epoch, epoch.ended, len(epoch.steps)) for epoch in epochs] == [
        (0, "exhausted", 4),
        (1, "exhausted", 4),
    ]
    check_overlap(epochs)


@pytest.mark.parametrize(("leave", "ended"), [(False, "exhausted"), (True, "dropped")])
def test_what_is_no_data_loader(leave: bool, ended: str, tmp_path: Path) -> None:
    with pipeprof.profile([torch.zeros(2)] * 3, out=tmp_path / "run") as items:
        for _ in range(2):
            for _ in items:
                if leave:
                    break
    epochs = epochs_of(tmp_path / "run")
    assert [(epoch.epoch, epoch.ended) for epoch in epochs] == [(0, ended), (1, ended)]
    check_overlap(epochs)
    for epoch in epochs:
        check_order(epoch)


class SlowBehind(Dataset[Any]):
    """Its batches but the first take long, so that a worker that is told to end is in one of them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index:
            time.sleep(0.3)
        return index


def test_a_break_is_the_end_and_not_the_shutdown_after_it(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.observe(DataLoader(SlowBehind(), num_workers=1))
        for _ in loader:
            left_ns = time.monotonic_ns()
            break
        after_ns = time.monotonic_ns()
    (epoch,) = epochs_of(tmp_path / "run")
    assert epoch.end_ns is not None
    assert left_ns <= epoch.end_ns <= after_ns
    assert epoch.end_ns - left_ns < (after_ns - left_ns) / 2, "the worker's last batch is in the rest"


def test_the_end_of_an_epoch_has_the_request_that_found_it(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.observe(squares(num_workers=1))
        for _ in loader:
            body_ns = time.monotonic_ns()
    (epoch,) = epochs_of(tmp_path / "run")
    assert epoch.end_ns is not None
    assert body_ns <= epoch.others["last_request"] <= epoch.end_ns


def test_an_iterator_that_no_batch_was_asked_of_has_no_epoch(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.observe(squares())
        iter(loader)
        assert len(list(loader)) == BATCHES
    assert Counter(row["kind"] for row in load(tmp_path / "run").table("events").to_pylist()) == {
        "epoch_start": 1,
        "last_request": 1,
        "epoch_end": 1,
    }
