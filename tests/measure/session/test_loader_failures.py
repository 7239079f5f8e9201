"""Errors in the user's parts, breaks and loaders in odd places: what the program sees is as without us."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases
from tests.timing import Timing

WORKERS = pytest.mark.parametrize("workers", [0, 2])
SLEEP_S = 0.04


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load(out).table(table).to_pylist()
    return found


class BrokenSampler(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sampler is broken")

    def __len__(self) -> int:
        return 40


def broken_collate(samples: list[Any]) -> Any:
    if any(square == 13**2 for _, square, _ in samples):
        with pipeprof.stage("sorting"):
            time.sleep(SLEEP_S)
        time.sleep(SLEEP_S)
        raise ValueError("the collate is broken")
    return len(samples)


def broken_init(worker: int) -> None:
    raise ValueError(f"worker {worker} is broken")


def told(error: BaseException) -> tuple[type, str]:
    """What a program sees of an error. Its frames hold the iterator; where the garbage collector ends that,
    torch waits 5 s a worker."""
    traceback.clear_frames(error.__traceback__)
    return type(error), str(error).strip().splitlines()[-1]


def all_of(loader: Any, most: int = 99) -> list[Any]:
    """Batches and errors, in the order in which `next` gives them."""
    found: list[Any] = []
    iterator = iter(loader)
    while len(found) < most:
        try:
            batch = next(iterator)
        except StopIteration:
            break
        except Exception as error:
            found.append(told(error))
        else:
            found.append(int(batch[1][0]) if isinstance(batch, list) else batch)
    return found


def both(make: Callable[[], Any], out: Path, most: int = 99) -> list[Any]:
    """What `next` gives without and with the probe; asserts that it is the same."""
    plain = all_of(make(), most)
    with pipeprof.profile(make(), out=out) as loader:
        assert all_of(loader, most) == plain
    return plain


@WORKERS
def test_an_error_in_collate(workers: int, tmp_path: Path, timing: Timing) -> None:
    def make() -> Any:
        return DataLoader(cases.Squares(16), batch_size=4, num_workers=workers, collate_fn=broken_collate)

    found = both(make, tmp_path / "run")
    assert found == [
        4,
        4,
        4,
        (ValueError, "ValueError: the collate is broken" if workers else "the collate is broken"),
    ]
    made = {row["seq"]: row for row in rows(tmp_path / "run", "batches")}
    assert [made[seq]["samples"] for seq in range(4)] == [4, 4, 4, None]
    failed = {row["stage"]: row for row in rows(tmp_path / "run", "stages") if row["seq"] == 3}
    for name in ("collate", "stage:sorting"):
        assert failed[name]["wall_ns"] / 1e9 >= SLEEP_S, name
        with timing.compared():
            assert failed[name]["wall_ns"] / 1e9 < 2 * SLEEP_S, name


@WORKERS
def test_next_after_an_error_goes_on(workers: int, tmp_path: Path) -> None:
    found = both(lambda: DataLoader(cases.Broken(24), batch_size=4, num_workers=workers), tmp_path / "run")
    assert [kind for kind in found if isinstance(kind, int)] == [(4 * n) ** 2 for n in (0, 1, 2, 4, 5)]
    assert [row["seq"] for row in rows(tmp_path / "run", "steps")] == [0, 1, 2, 4, 5]
    made = {row["seq"]: row for row in rows(tmp_path / "run", "batches")}
    assert [made[seq]["samples"] for seq in range(6)] == [4, 4, 4, None, 4, 4]
    assert made[3]["finish_ns"] is None


@WORKERS
def test_an_error_in_the_sampler(workers: int, tmp_path: Path) -> None:
    def error_of(loader: Any) -> Any:
        try:
            list(loader)
        except ValueError as error:
            return told(error)

    def make() -> Any:
        return DataLoader(cases.Squares(), sampler=BrokenSampler(), num_workers=workers)

    plain = error_of(make())
    assert plain == (ValueError, "the sampler is broken")
    with pipeprof.profile(make(), out=tmp_path / "run") as loader:
        assert error_of(loader) == plain
    assert load(tmp_path / "run").status == "complete"


def test_an_error_in_worker_init_fn(tmp_path: Path) -> None:
    def make() -> Any:
        return DataLoader(cases.Squares(8), num_workers=1, worker_init_fn=broken_init)

    assert both(make, tmp_path / "run", most=1) == [(ValueError, "ValueError: worker 0 is broken")]


def staged_collate(samples: list[Any]) -> int:
    with pipeprof.stage("padding"):
        time.sleep(SLEEP_S)
    return len(samples)


@WORKERS
@pytest.mark.parametrize("dataset", [cases.Squares, cases.Stream])
def test_a_stage_in_collate(dataset: Any, workers: int, tmp_path: Path, timing: Timing) -> None:
    loader = DataLoader(dataset(16), batch_size=4, num_workers=workers, collate_fn=staged_collate)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert list(loader) == [4] * 4
    stages = rows(tmp_path / "run", "stages")
    padding = [row["wall_ns"] for row in stages if row["stage"] == "stage:padding"]
    collate = [row["wall_ns"] for row in stages if row["stage"] == "collate"]
    assert len(padding) == len(collate) == 4
    assert min(padding) >= SLEEP_S * 1e9
    with timing.compared():
        assert max(collate) < SLEEP_S * 1e9, "the stage is taken out of collate"


INNER: list[DataLoader[Any]] = []


class LoaderInside(Dataset[Any]):
    """Each sample is made of all batches of another loader."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        with pipeprof.stage("gathering"):
            return torch.stack([batch[1].sum() for batch in INNER[0]]) + index


class LoaderInsideAStream(cases.Stream):
    def __iter__(self) -> Iterator[Any]:
        for batch in INNER[0]:
            yield batch[1]


@WORKERS
@pytest.mark.parametrize(("dataset", "epochs"), [(LoaderInside, 4), (LoaderInsideAStream, 1)])
def test_a_loader_inside_a_data_set(dataset: Any, epochs: int, workers: int, tmp_path: Path) -> None:
    """In this process both are observed, each with its own times; a worker observes but its own batches."""

    def run(session: Session | None) -> list[Any]:
        outer = DataLoader(dataset(), batch_size=2, num_workers=min(workers, 1))
        INNER[:] = [DataLoader(cases.Squares(8), batch_size=4)]
        if session is not None:
            session.observe(outer, "outer")
            session.observe(INNER[0], "inner")
        return [batch.tolist() for batch in outer]

    plain = run(None)
    with Session(tmp_path / "run") as session:
        assert run(session) == plain
    INNER.clear()
    made = rows(tmp_path / "run", "batches")
    outer = [row for row in made if row["loader"] == 0]
    assert [row["samples"] for row in outer] == [len(batch) for batch in plain]
    inner = [row for row in made if row["loader"] == 1]
    assert len(inner) == (0 if workers else 2 * epochs)
    assert all(row["finish_ns"] is not None for row in made)
    spent = sum(row["finish_ns"] - row["start_ns"] for row in outer)
    stages = [row for row in rows(tmp_path / "run", "stages") if row["loader"] == 0 and row["scope"] == 0]
    assert all(row["wall_ns"] >= 0 for row in stages)
    assert sum(row["wall_ns"] for row in stages) <= spent


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (cases.Stream, {}),
        (cases.Stream, {"num_workers": 2}),
        (cases.Stream, {"num_workers": 2, "persistent_workers": True}),
        (cases.Squares, {}),
        (cases.Squares, {"num_workers": 2, "in_order": False, "persistent_workers": True}),
    ],
    ids=["stream", "stream, workers", "stream, persistent", "no workers", "out of order"],
)
def test_breaks(dataset: Any, options: dict[str, Any], tmp_path: Path) -> None:
    loader = DataLoader(dataset(), batch_size=4, **options)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for epoch in range(3):
            for step, _ in enumerate(loader):
                if step == epoch:
                    break
    steps = rows(tmp_path / "run", "steps")
    made = {(row["epoch"], row["seq"]): row for row in rows(tmp_path / "run", "batches")}
    assert [row["epoch"] for row in steps] == [0, 1, 1, 2, 2, 2]
    for row in steps:
        batch = made[row["epoch"], row["seq"]]
        assert batch["samples"] == row["samples"] == 4
        assert batch["finish_ns"] <= row["take_ns"]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("dataset", [cases.StatefulSquares, cases.StatefulStream])
def test_a_state_is_what_it_is_without_us(dataset: Any, workers: int, tmp_path: Path) -> None:
    """Its values too, so that a run goes on without the probe from where one with it was saved."""

    def make() -> StatefulDataLoader[Any]:
        return StatefulDataLoader(dataset(24), batch_size=4, num_workers=workers)

    def begun(loader: Any) -> Any:
        iterator = iter(loader)
        for _ in range(2):
            next(iterator)
        return loader.state_dict()

    def rest(loader: Any, state: Any) -> list[int]:
        loader.load_state_dict(state)
        return [int((batch[1] if isinstance(batch, list) else batch).ravel()[0]) for batch in loader]

    torch.manual_seed(3)
    plain = begun(make())
    torch.manual_seed(3)
    with pipeprof.profile(make(), out=tmp_path / "run") as loader:
        observed = begun(loader)
    assert observed == plain
    assert rest(make(), observed) == rest(make(), plain)


@WORKERS
def test_every_span_of_real_workers(workers: int, tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(16), batch_size=4, num_workers=workers)
    with pipeprof.profile(loader, out=tmp_path / "run", detail="sample"):
        assert len(list(loader)) == 4
    spans = rows(tmp_path / "run", "spans")
    mine = [row for row in spans if row["stage"] == "stage:mine"]
    assert sorted(row["sample"] for row in mine) == list(range(16))
    assert all(row["sample"] // 4 == row["seq"] for row in mine)
    made = {row["seq"]: row for row in rows(tmp_path / "run", "batches")}
    for row in spans:
        batch = made[row["seq"]]
        assert row["worker"] == batch["worker"]
        assert batch["start_ns"] <= row["start_ns"]
        assert row["start_ns"] + row["wall_ns"] <= batch["finish_ns"]
    for stage in ("getitem", "stage:mine"):
        assert sum(row["stage"] == stage for row in spans) == 16
    assert sum(row["stage"] == "collate" for row in spans) == 4
