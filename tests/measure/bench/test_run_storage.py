"""Whole runs on real directories, cold, warm and doubtful, and on emulated devices too fast to emulate."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.measure.bench.bench import Bench
from pipeprof.measure.bench.run import run
from pipeprof.measure.data.generate import made_set
from pipeprof.measure.host.page_cache import evict
from pipeprof.measure.probe import files as recorded_files
from pipeprof.measure.storage import emulated_files
from pipeprof.scenario import Scenario
from tests.measure.bench.test_run import column, one_cache, scenario  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("of_any_length")

LONG = {"steps": 30, "warmup_steps": 5}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory whose files can leave memory, and whose reads the kernel counts."""
    place = tmp_path / "disk"
    place.mkdir()
    file = place / "file"
    file.write_bytes(os.urandom(65536))
    evict([file])
    before = getrusage(RUSAGE_SELF).ru_inblock
    file.read_bytes()
    if getrusage(RUSAGE_SELF).ru_inblock == before:
        pytest.skip("the temporary directory lies in memory, or the kernel does not count its reads")
    return place


def on(disk: Path, **storage: Any) -> Scenario:
    return scenario(storage={"tier": "ssd", "path": str(disk), **storage}, run=LONG)


def from_device(found: Analysis) -> float:
    """The share of the bytes read that came from the device."""
    read = sum(size for size in column(found.run, "stages", "bytes") if size)
    return float(sum(column(found.run, "batches", "device_bytes")) / read)


def doubts(found: Analysis) -> list[str]:
    return [doubt.name for doubt in found.verdict.doubts]


def test_cold_comes_from_the_device_and_warm_does_not(disk: Path, tmp_path: Path) -> None:
    cold = load(run(on(disk), tmp_path / "cold"))
    assert from_device(cold) >= 0.95
    assert "page-cache" not in doubts(cold)
    warm = load(run(on(disk, cache="warm"), tmp_path / "warm"))
    assert from_device(warm) < 0.05
    assert "page-cache" not in doubts(warm)


def _hold(files: list[Path], ready: Connection) -> None:
    held = []
    for path in files:
        with path.open("rb") as file:
            held.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        assert sum(held[-1][:: mmap.PAGESIZE]) >= 0  # a page that is mapped cannot be evicted
    ready.send(True)
    ready.recv()


@contextmanager
def kept_warm(files: list[Path]) -> Iterator[None]:
    """Another process keeps `files` in memory."""
    mine, its = get_context("fork").Pipe()
    other = get_context("fork").Process(target=_hold, args=(files, its))
    other.start()
    try:
        assert mine.recv()
        yield
    finally:
        mine.send(True)
        other.join(30)
        other.close()


@pytest.mark.parametrize(
    "part", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(8, id="an eighth")]
)
def test_a_cold_run_whose_files_another_process_keeps_warm_is_inconclusive(
    disk: Path, tmp_path: Path, part: int
) -> None:
    files = sorted(made_set(on(disk)).rglob("*.npy"))
    assert len(files) == 64
    with kept_warm(files[::part]):
        found = load(run(on(disk), tmp_path / "run"))
    assert found.verdict.cause == "inconclusive"
    assert doubts(found)[0] == "page-cache"


def test_where_the_kernel_counts_nothing_the_device_is_not_observed(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_files, "counts_device_reads", lambda device: False)  # as on NFS
    found = load(run(on(disk), tmp_path / "run"))
    assert set(column(found.run, "batches", "device_bytes")) == {None}
    assert found.facts is not None
    assert found.facts.device_bytes is None
    assert "page-cache" not in doubts(found)


def test_a_device_faster_than_python_is_named_beside_the_verdict(tmp_path: Path) -> None:
    figures = {"latency_ns": 1, "bandwidth_bytes_per_s": 1e12}
    parts: dict[str, Any] = {
        "data": {"samples": 512},
        "loader": {"batch_size": 16, "workers": 1},
        "run": LONG,
    }
    found = load(run(scenario(storage={"tier": "nvme", "figures": figures}, **parts), tmp_path / "fast"))
    assert found.run.meta.storage.emulator.limited_by_emulator
    assert "emulator-limited" in doubts(found)
    assert "was slower than its model" in str(found.verdict.as_dict()["verdict"]["doubts"])


def test_a_set_too_large_for_memory_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated_files, "free_memory_bytes", lambda: 100_000)
    monkeypatch.setattr(emulated_files, "warm", lambda files: pytest.fail("it was read whole"))
    with Bench(scenario()) as bench:
        assert any("does not fit well into memory" in warning for warning in bench.facts().warnings)
