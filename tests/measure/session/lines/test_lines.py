"""Lines of real loaders: found by name, at the same batches, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.measure.session.lines.loop import LoopLines, is_edge
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases
from tests.measure.session.test_loader_same import run, seed


def burn(cpu_ns: int) -> None:
    end_ns = time.thread_time_ns() + cpu_ns
    while time.thread_time_ns() < end_ns:
        pass


class Burning(Dataset[Any]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        burn(12_000_000)
        return torch.tensor([index])


def stacks(out: Path, stage: str, of_worker: bool) -> dict[str, int]:
    """Samples by innermost function."""
    found: dict[str, int] = {}
    for row in load(out).table("lines").to_pylist():
        if row["stage"] == stage and (row["worker"] >= 0) == of_worker and row["stack"]:
            function = row["stack"].splitlines()[-1].split("\t")[2]
            found[function] = found.get(function, 0) + row["samples"]
    return found


def assert_nothing_left(callbacks: list[Any]) -> None:
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert gc.callbacks == callbacks


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_lines_of_workers_in_each_epoch(method: str, tmp_path: Path) -> None:
    """In the second epoch too, whose workers are forked from a process that samples itself by then."""
    callbacks = list(gc.callbacks)
    loader = DataLoader(Burning(), batch_size=4, num_workers=1, multiprocessing_context=method)
    with pipeprof.profile(loader, out=tmp_path / "run", lines=True):
        for _ in range(2):
            assert torch.cat(list(loader)).flatten().tolist() == list(range(16))
    assert_nothing_left(callbacks)
    assert stacks(tmp_path / "run", "getitem", of_worker=True)["burn"] >= 6
    run = load(tmp_path / "run")
    assert run.meta.overhead.lines_ns
    counted = run.table("counters").to_pylist()
    own = [row for row in counted if row["counter"] == "own.lines_cpu_ns"]
    assert {row["worker"] for row in own} == {-1, 0}
    assert sum(row["value"] for row in own) == pytest.approx(run.meta.overhead.lines_ns * 8, rel=1e-6)
    cpu = [row for row in run.table("lines").to_pylist() if row["worker"] >= 0 and row["cpu_ns"]]
    assert cpu, "its computing was sampled by the CPU timer"


def test_lines_of_the_loop_and_of_its_own_making(tmp_path: Path) -> None:
    callbacks = list(gc.callbacks)
    loader = DataLoader(Burning(), batch_size=4)
    with pipeprof.profile(loader, out=tmp_path / "run", lines=True):
        for _ in loader:
            burn(40_000_000)
    assert_nothing_left(callbacks)
    assert stacks(tmp_path / "run", "getitem", of_worker=False)["burn"] >= 3
    assert stacks(tmp_path / "run", "main", of_worker=False)["burn"] >= 3


class Counting(Dataset[Any]):
    """Computes in Python, and lets go of the interpreter's lock in a short call behind that."""

    def __len__(self) -> int:
        return 3_200

    def __getitem__(self, index: int) -> torch.Tensor:
        counted()
        return torch.full((3, 64, 64), 1.0)


def counted() -> None:
    for _ in range(20_000):
        pass


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep all cores busy with other programs."""
    spin = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@pytest.mark.slow
def test_waiting_for_a_core_is_of_the_lines_that_compute(tmp_path: Path) -> None:
    """The sampling thread meets the other one where that lets go of the lock: that is not where it waited."""
    loader = DataLoader(Counting(), batch_size=16, num_workers=2)
    with busy_cores(), pipeprof.profile(loader, out=tmp_path / "run", lines=True, every_batch=True):
        for _ in loader:
            pass
    ns = {"counted": 0, "__getitem__": 0}
    for row in load(tmp_path / "run").table("lines").to_pylist():
        if row["stage"] == "getitem" and row["stack"]:
            function = row["stack"].splitlines()[-1].split("\t")[2].rpartition(".")[2]
            ns[function] = ns.get(function, 0) + row["wall_ns"]
    assert ns["counted"] > 2 * ns["__getitem__"], ns


class Drawing(Sampler[int]):
    """Draws the indices of an epoch at once, as a weighted sampler does."""

    def __iter__(self) -> Iterator[int]:
        burn(150_000_000)
        yield from range(16)


def test_lines_of_a_sampler_that_draws_before_the_first_request(tmp_path: Path) -> None:
    loader = DataLoader(
        torch.arange(16.0), batch_size=4, num_workers=1, sampler=Drawing(), persistent_workers=True
    )
    with pipeprof.profile(loader, out=tmp_path / "run", lines=True):
        for _ in range(2):
            assert len(list(loader)) == 4
    asked = [
        row
        for row in load(tmp_path / "run").table("lines").to_pylist()
        if "_next_index" in (row["stack"] or "") and row["stack"].endswith("burn")
    ]
    assert {row["stage"] for row in asked} == {"wait"}


def test_counts_without_lines(tmp_path: Path) -> None:
    """Counters are always on, and come from workers that have no aide."""
    callbacks = list(gc.callbacks)
    loader = DataLoader(Burning(), batch_size=4, num_workers=1)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            pass
        assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
    assert_nothing_left(callbacks)
    run = load(tmp_path / "run")
    assert run.meta.overhead.lines_ns is None
    assert run.table("lines").num_rows == 0
    counted = {(row["worker"], row["counter"]) for row in run.table("counters").to_pylist()}
    assert {
        (0, "startup.process_ns"),
        (0, "startup.imports_ns"),
        (0, "level.threads"),
        (-1, "sampler.ns.SequentialSampler"),
    } <= counted
    assert (0, "sampler.ns.SequentialSampler") not in counted, "a worker has none of its parent's counts"


def collecting(samples: list[Any]) -> Any:
    gc.collect()
    return torch.stack(samples)


@pytest.mark.parametrize("workers", [0, 1])
def test_collections_of_a_batch(workers: int, tmp_path: Path) -> None:
    loader = DataLoader(torch.arange(8.0), batch_size=4, num_workers=workers, collate_fn=collecting)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            pass
    for row in load(tmp_path / "run").table("batches").to_pylist():
        assert 0 < row["gc_ns"] <= row["finish_ns"] - row["start_ns"]


KINDS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "map": (DataLoader, "map, shuffled", {}),
    "stateful": (StatefulDataLoader, "map, shuffled", {}),
    "out of order": (DataLoader, "map, shuffled", {"in_order": False, "num_workers": 1}),
    "unbatched": (DataLoader, "map, batch_size=None", {}),
    "iterable": (DataLoader, "iterable", {}),
    "persistent": (DataLoader, "custom collate", {"persistent_workers": True}),
    "spawned": (DataLoader, "map, shuffled", {"multiprocessing_context": "spawn"}),
    "pinned": (DataLoader, "map, shuffled", {"pin_memory": True}),
}
QUICK = ("out of order", "persistent")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS]
)
def test_the_same_batches_and_the_times_of_their_way(kind: str, tmp_path: Path) -> None:
    make, case, more = KINDS[kind]
    dataset, arguments = cases.CASES[case]
    options = {"num_workers": 2, **arguments, **more}
    plain = run(make(dataset(), generator=seed(), **options))
    loader = make(dataset(), generator=seed(), **options)
    with pipeprof.profile(loader, out=tmp_path / "run", lines=True):
        assert run(loader) == plain
    steps = load(tmp_path / "run").table("steps").to_pylist()
    batches = {(row["epoch"], row["seq"]): row for row in load(tmp_path / "run").table("batches").to_pylist()}
    assert len(steps) == len(plain[0])
    for step in steps:
        made = batches[step["epoch"], step["seq"]]
        way = [made["finish_ns"], *(step[name] for name in WAY), step["take_ns"]]
        assert way == sorted(way)
    sent = [step for step in steps if step["sent_ns"] is not None]
    assert len(sent) >= len(steps) / 2, "told by the worker's next batch; of its last by none"
    for step in sent:
        assert step["pickled_ns"] <= step["sent_ns"]
        assert step["sent_bytes"] > 0


WAY = ("pickled_ns", "receive_start_ns", "received_ns")


def test_inboxes_are_closed_with_their_iterators(tmp_path: Path) -> None:
    from pipeprof.measure.probe import handover

    before = set(handover._inboxes)
    with Session(tmp_path / "run", lines=True) as session:
        for _ in session.loader(cases.Squares(), batch_size=8, num_workers=1):
            pass
    assert set(handover._inboxes) == before


class Numbered(Dataset[Any]):
    def __init__(self) -> None:
        self.rows = [np.arange(2000) for _ in range(64)]

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return self.rows[index].tolist()


def slow_collate(samples: list[Any]) -> torch.Tensor:
    return torch.tensor(samples)  # one native call that holds the GIL


def test_native_code_is_credited_to_the_line_that_calls_it(tmp_path: Path) -> None:
    loader = DataLoader(Numbered(), batch_size=64, num_workers=1, collate_fn=slow_collate)
    with pipeprof.profile(loader, out=tmp_path / "run", lines=True):
        for _ in range(1):
            for _ in loader:
                pass
    found = stacks(tmp_path / "run", "collate", of_worker=True)
    assert not found or set(found) <= {"slow_collate"}


class Pinned(list[torch.Tensor]):
    """A batch that needs no accelerator to be pinned."""

    def pin_memory(self) -> Pinned:
        return self


def listed(samples: list[torch.Tensor]) -> Pinned:
    return Pinned(samples)


def test_the_thread_that_pins_is_watched_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch starts it where it sees an accelerator: here it is told of one."""
    device = {
        "is_available": True,
        "current_accelerator": torch.device("cpu"),
        "current_device_index": 0,
        "set_device_index": None,
    }
    for name, answer in device.items():
        monkeypatch.setattr(torch.accelerator, name, lambda *given, answer=answer: answer)
    watched: list[threading.Thread] = []
    monkeypatch.setattr(LoopLines, "pinning", lambda lines, thread, ready: watched.append(thread))
    with Session(tmp_path / "run", lines=True) as session:
        loader = session.loader(torch.arange(8.0), num_workers=1, pin_memory=True, collate_fn=listed)
        iterator = iter(loader)
        thread = iterator._pin_memory_thread
        for _ in iterator:
            pass
    assert watched == [thread]


@pytest.mark.parametrize(
    ("file", "ends"),
    [("cli/measure/run.py", True), ("measure/bench/bench.py", False), ("../train.py", False)],
)
def test_what_called_a_verb_of_pipeprof_is_no_part_of_a_stack(file: str, ends: bool) -> None:
    """Else click's calls of `pipeprof run` were the lines of a loop that is pipeprof's own."""
    code = compile("", str(Path(pipeprof.__file__).parent / file), "exec")
    assert is_edge(code) is ends
