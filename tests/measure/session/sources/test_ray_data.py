"""Ray Data's statistics on modules of the same names: what is read, and what another version may do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import pipeprof
from pipeprof.measure.session.sources.ray_data import added, statistics_of
from pipeprof.record.meta import OperatorMeta
from pipeprof.record.reader import load

SUMMARY = SimpleNamespace(
    parents=[
        SimpleNamespace(
            parents=[],
            operators_stats=[
                SimpleNamespace(
                    operator_name="ReadParquet",
                    wall_time=SimpleNamespace(sum=0.5),
                    cpu_time=SimpleNamespace(sum=0.25),
                    output_num_rows=SimpleNamespace(sum=40.0),
                    task_rows=SimpleNamespace(count=4),
                )
            ],
        )
    ],
    operators_stats=[  # as an older version has it
        SimpleNamespace(
            operator_name="Map(f)", wall_time={"sum": 2.0}, cpu_time=None, output_num_rows={"sum": 40}
        )
    ],
)
OPERATORS = (
    OperatorMeta("ReadParquet", 500_000_000, 250_000_000, 40, 4),
    OperatorMeta("Map(f)", 2_000_000_000, None, 40, None),
)


class DataIterator:
    def __init__(self, stats: Callable[[], Any]) -> None:
        self._base_dataset = SimpleNamespace(get_stats_summary=stats, _get_stats_summary=stats)

    def iter_batches(self, count: int = 3) -> Batches:
        def batches() -> Iterator[int]:
            assert self is not None
            return iter(range(count))

        return Batches(batches)


class Batches:
    def __init__(self, made: Callable[[], Iterator[int]]) -> None:
        self.iterator_gen = made

    def __iter__(self) -> Iterator[int]:
        return self.iterator_gen()


def broken() -> Any:
    raise RuntimeError("another version")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    ray, data = ModuleType("ray"), ModuleType("ray.data")
    ray.is_initialized = lambda: True  # type: ignore[attr-defined]
    ray.get = lambda answer, timeout: answer  # type: ignore[attr-defined]
    data.DataIterator = DataIterator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    return ray


@pytest.mark.usefixtures("ray")
def test_operators_are_read_along_the_way_of_the_data() -> None:
    read = statistics_of(DataIterator(lambda: SUMMARY).iter_batches())
    assert read is not None
    assert read() == OPERATORS


@pytest.mark.usefixtures("ray")
def test_of_a_split_stream_the_coordinator_is_asked() -> None:
    iterator = DataIterator(broken)
    answer = SimpleNamespace(to_summary=lambda: SUMMARY)
    iterator._coord_actor = SimpleNamespace(stats=SimpleNamespace(remote=lambda: answer))  # type: ignore[attr-defined]
    read = statistics_of(iterator.iter_batches())
    assert read is not None
    assert read() == OPERATORS


@pytest.mark.parametrize("stats", [broken, lambda: None, lambda: SimpleNamespace(parents=3)])
def test_another_versions_are_not_observed(stats: Callable[[], Any], ray: ModuleType, tmp_path: Path) -> None:
    iterable = DataIterator(stats).iter_batches()
    with pipeprof.profile(iterable, out=tmp_path / "run") as batches:
        assert list(batches) == [0, 1, 2]
    (loader,) = load(tmp_path / "run").meta.loaders
    assert (loader.name, loader.operators) == ("Ray Data", ())
    ray.is_initialized = lambda: False  # type: ignore[attr-defined]
    read = statistics_of(DataIterator(lambda: SUMMARY).iter_batches())
    assert read is not None
    assert read() is None, "asking would start it anew"


@pytest.mark.usefixtures("ray")
def test_what_is_none_of_rays() -> None:
    class Odd:
        __slots__ = ()

    assert [statistics_of(each) for each in (Odd(), [1], SimpleNamespace(a=3), lambda: 3)] == [None] * 4


@pytest.mark.usefixtures("ray")
def test_each_pass_is_added_once_and_one_that_is_left_at_the_end(tmp_path: Path) -> None:
    iterable = DataIterator(lambda: SUMMARY).iter_batches()
    with pipeprof.profile(iterable, out=tmp_path / "run") as batches:
        assert list(batches) == [0, 1, 2]
        for _ in batches:
            break
        assert list(batches) == [0, 1, 2]
        for _ in batches:
            break
    (loader,) = load(tmp_path / "run").meta.loaders
    assert [each.rows for each in loader.operators] == [160, 160]
    assert [each.cpu_ns for each in loader.operators] == [1_000_000_000, None], "not observed is not 0"


def test_another_chain_of_operators_is_not_added() -> None:
    assert added(OPERATORS, OPERATORS[:1]) == OPERATORS
    assert added((), OPERATORS) == OPERATORS
