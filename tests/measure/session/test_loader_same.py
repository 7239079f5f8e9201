"""Batches, their order and the random state are as without the probe, and every batch is recorded."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.record.reader import load
from tests.forked import Program
from tests.measure.session import loader_cases as cases


def seed() -> torch.Generator:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    return torch.Generator().manual_seed(11)


def flat(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    if isinstance(batch, dict):
        return {key: flat(value) for key, value in batch.items()}
    return [flat(each) for each in batch] if isinstance(batch, (list, tuple)) else batch


def shape_of(batch: Any) -> Any:
    inner = [shape_of(each) for each in batch] if isinstance(batch, (list, tuple)) else None
    return type(batch), inner


def states() -> Any:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def run(loader: Any, epochs: int = 2) -> Any:
    batches = [batch for _ in range(epochs) for batch in loader]
    return [flat(b) for b in batches], [shape_of(b) for b in batches], states()


def both(make: Any, out: Path, epochs: int = 2, kind: Any = DataLoader) -> Any:
    """The loader made by `make` without and with the probe; asserts that they give the same."""
    plain = run(make(kind, seed()), epochs)
    loader = make(kind, seed())
    with pipeprof.profile(loader, out=out) as profiled:
        assert profiled is loader
        observed = run(profiled, epochs)
    assert observed == plain
    return plain[0]


def assert_all_recorded(out: Path, batches: list[Any], in_order: bool = True) -> None:
    recorded = load(out)
    assert recorded.status == "complete"
    steps, made = recorded.table("steps").to_pylist(), recorded.table("batches").to_pylist()
    assert len(steps) == len(batches)
    by_key = {(row["epoch"], row["seq"]): row for row in made}
    assert len(by_key) == len(made)
    for step in steps:
        batch = by_key[step["epoch"], step["seq"]]
        assert step["request_ns"] <= step["take_ns"]
        assert batch["start_ns"] <= batch["finish_ns"] <= step["take_ns"]
        assert batch["samples"] == step["samples"]
        if batch["dispatch_ns"] is not None:
            assert batch["dispatch_ns"] <= batch["start_ns"]
    assert [step["epoch"] for step in steps] == sorted(step["epoch"] for step in steps)
    if in_order:
        keys = [(step["epoch"], step["seq"]) for step in steps]
        assert keys == sorted(keys)


ALL = [(case, workers) for case in cases.CASES for workers in ("no workers", "2 workers")]
FEW = ("map, shuffled", "custom collate", "iterable", "iterable, batch_size=None")
SOME = [(case, workers) for case in FEW for workers in ("persistent", "pinned")]


def is_quick(case: str, workers: str) -> bool:
    return workers == "no workers" or (case in FEW[::2] and workers == "2 workers")


@pytest.mark.parametrize(
    ("case", "workers"),
    [pytest.param(*each, marks=() if is_quick(*each) else pytest.mark.slow) for each in ALL + SOME],
)
def test_same_batches(case: str, workers: str, tmp_path: Path) -> None:
    dataset, arguments = cases.CASES[case]
    options = {**arguments, **cases.WITH_WORKERS[workers]}

    def make(kind: Any, generator: torch.Generator) -> Any:
        return kind(dataset(), generator=generator, **options)

    batches = both(make, tmp_path / "run")
    unnumbered = "iterable" in case and arguments["batch_size"] is None and workers != "no workers"
    assert_all_recorded(tmp_path / "run", batches, in_order=not unnumbered)


@pytest.mark.parametrize(
    ("method", "case"),
    [
        ("fork", "map"),
        pytest.param("spawn", "map", marks=pytest.mark.slow),
        pytest.param("spawn", "iterable", marks=pytest.mark.heavy),
        pytest.param("forkserver", "map", marks=pytest.mark.slow),
    ],
)
def test_start_methods(method: str, case: str, tmp_path: Path) -> None:
    dataset, arguments = cases.CASES[case]

    def make(kind: Any, generator: torch.Generator) -> Any:
        return kind(
            dataset(), generator=generator, num_workers=2, multiprocessing_context=method, **arguments
        )

    batches = both(make, tmp_path / "run", epochs=1)
    assert_all_recorded(tmp_path / "run", batches)
    assert load(tmp_path / "run").meta.loaders[0].start_method == method


@pytest.mark.parametrize("workers", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    def make(kind: Any, generator: torch.Generator) -> Any:
        return kind(cases.Squares(), batch_size=3, num_workers=workers, generator=generator)

    assert_all_recorded(tmp_path / "run", both(make, tmp_path / "run", epochs=1))
    made = load(tmp_path / "run").table("batches").to_pylist()
    assert {row["worker"] for row in made} == set(range(workers))


def test_worker_init_fn_meets_its_own_dataset(tmp_path: Path) -> None:
    def make(kind: Any, generator: torch.Generator) -> Any:
        return kind(
            cases.Squares(),
            batch_size=4,
            num_workers=2,
            worker_init_fn=cases.tell_dataset,
            generator=generator,
        )

    both(make, tmp_path / "run")


@pytest.mark.parametrize(
    "case", ["map", *(pytest.param(case, marks=pytest.mark.slow) for case in FEW if "iterable" in case)]
)
def test_out_of_order(case: str, tmp_path: Path) -> None:
    """The order is the workers' affair, so the batches are compared as a set."""
    dataset, arguments = cases.CASES[case]
    if case == "map":
        dataset = cases.Slow
    loader = DataLoader(dataset(), num_workers=2, in_order=False, **arguments)
    with pipeprof.profile(loader, out=tmp_path / "run") as profiled:
        batches = [batch for _ in range(2) for batch in profiled]
    assert_all_recorded(tmp_path / "run", batches, in_order=False)
    if case == "map":
        firsts = [int(batch[1][0]) for batch in batches]
        seqs = [row["seq"] for row in load(tmp_path / "run").table("steps").to_pylist()]
        assert [int((4 * seq) ** 2) for seq in seqs] == firsts
        assert seqs != sorted(seqs)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "dataset", [cases.Squares, cases.StatefulSquares, cases.StatefulStream, cases.Stream, cases.OwnIterator]
)
def test_stateful_dataloader(dataset: Any, workers: int, tmp_path: Path) -> None:
    """Saved in the middle of an epoch and restored into a new loader, with and without the probe."""
    shuffle = isinstance(dataset(), torch.utils.data.Dataset) and not isinstance(
        dataset(), torch.utils.data.IterableDataset
    )
    options: dict[str, Any] = {"batch_size": 3, "num_workers": workers}
    if shuffle:
        options["shuffle"] = True

    def first_half(loader: Any) -> Any:
        iterator = iter(loader)
        batches = [flat(next(iterator)) for _ in range(2)]
        return batches, loader.state_dict()

    def second_half(loader: Any, state: Any) -> Any:
        loader.load_state_dict(state)
        return [flat(batch) for batch in loader]

    seed()
    plain, state = first_half(StatefulDataLoader(dataset(), **options))
    rest = second_half(StatefulDataLoader(dataset(), **options), state)
    seed()
    with pipeprof.profile(StatefulDataLoader(dataset(), **options), out=tmp_path / "a") as loader:
        observed, observed_state = first_half(loader)
    with pipeprof.profile(StatefulDataLoader(dataset(), **options), out=tmp_path / "b") as loader:
        observed_rest = second_half(loader, observed_state)
    assert observed == plain
    assert observed_rest == rest
    assert set(observed_state) == set(state)
    assert_all_recorded(tmp_path / "b", rest)


def first_use() -> None:
    """pipeprof and all that it alone imports come in after the program has seeded its random numbers."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pipeprof", "rich")]:
        del sys.modules[name]
    seed()
    before = states()
    import pipeprof

    with pipeprof.profile(DataLoader(list(range(8)), generator=torch.Generator())) as loader:
        assert states() == before
        batches = list(loader)
        with pipeprof.stage("mine"):
            loader.summary()
            loader.verdict()
            loader.save("saved")
    assert len(batches) == 8
    assert states() == before


def test_the_first_use_in_a_process_leaves_the_random_state_alone(tmp_path: Path) -> None:
    done = Program(first_use, tmp_path).finished()
    assert done.returncode == 0, done.stderr
