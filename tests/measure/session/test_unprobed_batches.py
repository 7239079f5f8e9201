"""Unprobed batches of real loaders: the same batches in the same order, and a record that says so."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.measure.probe import unprobed
from pipeprof.measure.session import loader_watch
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases

BATCHES = 150
"""Two periods and a bit of one process; of each of two workers one."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_watch, "UNPROBED_FIRST", 0)


def all_of(loader: Any) -> list[Any]:
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(5)
    return [torch.utils._pytree.tree_flatten(batch)[0] for batch in loader]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "map": (cases.Squares(BATCHES * 3), {"batch_size": 3, "shuffle": True}),
    "many at once": (cases.ManyAtOnce(BATCHES * 2), {"batch_size": 2}),
    "no batches": (cases.Squares(BATCHES), {"batch_size": None}),
    "stream": (cases.Stream(BATCHES * 3), {"batch_size": 3}),
    "stream, no batches": (cases.Stream(BATCHES), {"batch_size": None}),
    "its own iterator": (cases.Stream(BATCHES * 2), {"batch_size": 2, "drop_last": True}),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_and_each_is_recorded(kind: str, workers: int, tmp_path: Path) -> None:
    dataset, options = KINDS[kind]
    loader = DataLoader(dataset, num_workers=workers, **options)
    plain = all_of(loader)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        observed = all_of(loader)
    assert same(observed, plain)
    run = load(tmp_path / "run")
    batches, steps = (run.table(name).to_pylist() for name in ("batches", "steps"))
    assert sorted((row["seq"]) for row in batches) == sorted(row["seq"] for row in steps)
    assert len(steps) == len(plain)
    assert all(row["samples"] and row["start_ns"] <= row["finish_ns"] for row in batches)
    assert all(row["samples"] for row in steps)
    marked = [row for row in batches if row["unprobed"]]
    assert 4 <= len(marked) <= len(batches) / 16 + 4
    assert {row["unprobed"] for row in batches} == {True, None}
    for name in ("cpu_ns", "runq_ns", "device_bytes", "gc_ns", "bytes", "slowest_ns"):
        assert {row[name] for row in marked} == {None}, name
    keys = {row["seq"] for row in marked}
    inside = [row for row in run.table("stages").to_pylist() if row["seq"] in keys and row["scope"] == 0]
    assert inside == []
    assert sum(row["unprobed"] is not None for row in steps) >= 4
    for row in (*batches, *steps):
        assert (row["own_ns"] is not None) == bool(row["unprobed"])
    if workers == 0:
        assert keys == {row["seq"] for row in steps if row["unprobed"]}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_where_few_are_probed(
    kind: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprobed, "FULL", unprobed.THIN)
    dataset, options = KINDS[kind]
    loader = DataLoader(dataset, num_workers=workers, **options)
    plain = all_of(loader)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        observed = all_of(loader)
    assert same(observed, plain)
    batches = load(tmp_path / "run").table("batches").to_pylist()
    assert len(batches) == len(plain)
    assert all(row["samples"] and row["start_ns"] <= row["finish_ns"] for row in batches)
    assert len(batches) / 12 <= sum(not row["unprobed"] for row in batches) <= len(batches) / 6
    own = pipeprof.load(tmp_path / "run").verdict.as_dict()["own_cost"]
    assert own["thinned"]["first"] == 0
    assert own["thinned"]["batches"] == len(batches)
    assert (own["thinned_steps"] is None) == (workers == 0)


def test_a_loop_that_is_marked_is_not_unprobed(tmp_path: Path) -> None:
    """What the user marks between two batches is charged to the step that it is in."""
    loader = DataLoader(cases.Squares(BATCHES), batch_size=1)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            with pipeprof.stage("mine"):
                pass
    run = load(tmp_path / "run")
    assert set(run.table("steps")["unprobed"].to_pylist()) == {None}
    assert set(run.table("batches")["unprobed"].to_pylist()) == {None}
    marks = [row for row in run.table("stages").to_pylist() if row["scope"] == 1]
    assert len(marks) == BATCHES


def test_a_sample_that_raises_fails_its_step_as_ever(tmp_path: Path) -> None:
    loader = DataLoader(Late(BATCHES), batch_size=1)
    steps = 0
    with pipeprof.profile(loader, out=tmp_path / "run"), pytest.raises(ValueError, match="late"):
        for _ in loader:
            steps += 1
    batches = load(tmp_path / "run").table("batches").to_pylist()
    assert batches[-1]["unprobed"]
    assert batches[-1]["finish_ns"] is None
    assert len(batches) == steps + 1


class Late(cases.Squares):
    """Raises in an unprobed batch."""

    def __getitem__(self, index: int) -> Any:
        if index == 53:
            raise ValueError("late")
        return super().__getitem__(index)


def test_a_short_loop_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    loader = DataLoader(cases.Squares(BATCHES), batch_size=1)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert len(list(loader)) == BATCHES
    run = load(tmp_path / "run")
    assert set(run.table("batches")["unprobed"].to_pylist()) == {None}
    own = pipeprof.load(tmp_path / "run").verdict.as_dict()["own_cost"]
    assert own["main"]["state"] == "too-short"
