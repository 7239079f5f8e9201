"""Counters of whole runs: the sampler's time, the parts of a start, the thread that takes the batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

import pipeprof
from pipeprof import ProfiledDataLoader
from pipeprof.record.reader import load
from tests.forked import Program, verb
from tests.measure.session import loader_cases as cases


class Drawn(Sampler[int]):
    """Draws its indices when it is asked for the first."""

    def __iter__(self) -> Iterator[int]:
        yield from sorted(range(40), key=lambda index: index % 7)

    def __len__(self) -> int:
        return 40


def sums(out: Path) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for row in load(out).table("counters").to_pylist():
        key = (row["worker"], row["counter"])
        found[key] = found.get(key, 0) + row["value"]
    return found


@pytest.mark.parametrize(
    "arguments",
    [{"sampler": Drawn(), "batch_size": 8}, {"batch_sampler": BatchSampler(Drawn(), 8, drop_last=False)}],
)
def test_the_sampler_is_named_by_its_class(arguments: dict[str, Any], tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(), **arguments)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            pass
    assert sums(tmp_path / "run")[-1, "sampler.ns.Drawn"] > 0


def slow_to_start(worker: int) -> None:
    sum(range(100_000))


def test_the_parts_of_a_start(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(), batch_size=8, num_workers=2, worker_init_fn=slow_to_start)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            pass
    found = sums(tmp_path / "run")
    assert found[-1, "startup.make_ns"] > 0
    assert found[-1, "startup.written_bytes"] >= 0
    for worker in (0, 1):
        assert found[worker, "startup.process_ns"] > 0
        assert found[worker, "startup.init_fn_ns"] > 0


class Copies(cases.Stream):
    """Each worker gives all of it."""

    def __iter__(self) -> Iterator[Any]:
        yield from range(self.length)


@pytest.mark.parametrize(("stream", "different"), [(Copies, 20), (cases.Stream, 40)])
def test_items_that_several_workers_give(stream: Any, different: int, tmp_path: Path) -> None:
    loader = DataLoader(stream(2 * 10 * (1 + (stream is cases.Stream))), batch_size=4, num_workers=2)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            pass
    items = [
        (row["worker"], row["value"])
        for row in load(tmp_path / "run").table("counters").to_pylist()
        if row["counter"] == "stream.item"
    ]
    assert len(items) == 40
    assert len({digest for _, digest in items}) == different
    facts = load(tmp_path / "run").meta.loaders[0]
    assert facts.splits_stream is (stream is cases.Stream)


@pytest.mark.parametrize("lines", [False, True])
def test_batches_that_another_thread_takes(lines: bool, tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(), batch_size=8)

    def take() -> None:
        for _ in loader:
            pass

    with pipeprof.profile(loader, out=tmp_path / "run", lines=lines):
        thread = threading.Thread(target=take, name="prefetcher")
        thread.start()
        thread.join()
    events = load(tmp_path / "run").table("events").to_pylist()
    assert [row["detail"] for row in events if row["kind"] == "consumer_thread"] == ["prefetcher"]


@pytest.mark.parametrize("steps_in_main", [True, False])
def test_the_thread_that_trains_is_told_where_another_one_takes_the_batches(
    steps_in_main: bool, tmp_path: Path
) -> None:
    loader = DataLoader(cases.Squares(), batch_size=8)
    weight = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.1)

    def take() -> None:
        for _ in loader:
            if not steps_in_main:
                optimiser.step()

    with pipeprof.profile(loader, out=tmp_path / "run"):
        thread = threading.Thread(target=take, name="prefetcher")
        thread.start()
        thread.join()
        optimiser.step()
    events = load(tmp_path / "run").table("events").to_pylist()
    told = [row["detail"] for row in events if row["kind"] == "trainer_thread"]
    assert told == (["MainThread"] if steps_in_main else [])
    from torch.optim.optimizer import _global_optimizer_post_hooks

    assert not _global_optimizer_post_hooks, "the hook is taken out"


def test_a_profiled_loader_samples_lines_where_it_is_asked_to(tmp_path: Path) -> None:
    for lines in (False, True):
        out = tmp_path / str(lines)
        loader = ProfiledDataLoader(cases.Slow(12), batch_size=4, out=out, lines=lines)
        for _ in loader:
            pass
        loader.session.close()
        assert (load(out).table("lines").num_rows > 0) is lines


SCRIPT = """
from torch.utils.data import DataLoader
for _ in DataLoader(list(range(64)), batch_size=8):
    sum(range(2_000_000))
"""


@pytest.mark.parametrize("lines", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_script_is_traced_with_lines_unless_they_are_off(lines: bool, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    off = () if lines else ("--no-lines",)
    main = verb("trace", "-q", "--no-report", "--out", "run", *off, "train.py")
    finished = Program(main, tmp_path).finished()
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    run = load(tmp_path / "run")
    assert (run.table("lines").num_rows > 0) is lines
    assert (run.meta.overhead.lines_ns is not None) is lines
    assert (-1, "sampler.ns.SequentialSampler") in sums(tmp_path / "run"), "counters are always on"
