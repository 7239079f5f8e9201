"""What `run.json` says while a run lasts: a reader of it may come at any time, or after a kill."""

from __future__ import annotations

import errno
import platform
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

from pipeprof.measure.session import flush
from pipeprof.measure.session import run_meta as session_facts
from pipeprof.measure.session import session as sessions
from pipeprof.measure.session.session import Session
from pipeprof.record import files
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases


def test_what_the_machine_does_not_tell_is_there_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_facts, "counts_steal", lambda: False)
    with Session(tmp_path / "run", meta=RunMeta(not_observed=("something",))):
        told = load(tmp_path / "run").meta.not_observed
    assert told[0] == "something"
    assert any("hypervisor" in what for what in told)
    assert load(tmp_path / "run").meta.not_observed == told


def test_dropped_records_are_told_of_as_they_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "RING_RECORDS", 4)
    monkeypatch.setattr(flush, "LOOK_EVERY_S", 60.0)  # no one drains but we
    with Session(tmp_path / "run") as session:
        loader = session.loader(cases.Squares(20), batch_size=1)
        counted: list[int] = []
        for _ in range(2):
            list(loader)
            session.flush()
            (told,) = load(tmp_path / "run").meta.warnings
            assert "records found their buffer full" in told
            counted.append(int(told.split()[0]))
        assert 0 < counted[0] < counted[1]
    assert load(tmp_path / "run").meta.warnings == (told,)


def test_a_full_disk_does_not_reach_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Session(tmp_path / "run") as session:
        with monkeypatch.context() as patched:
            patched.setattr(files, "write_atomically", full)
            assert len(list(session.loader(cases.Squares(8), batch_size=2))) == 4
        assert session.failure is not None
    assert capsys.readouterr().err.count("cannot be written any more: No space left on device") == 1
    assert load(tmp_path / "run").meta.loaders[0].id == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_of_a_data_pipe_the_loop_is_seen(workers: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(IterableWrapper(range(6)), batch_size=2, num_workers=workers)
    with Session(tmp_path / "run") as session:
        session.observe(loader, "pipe")
        assert [len(list(loader)) for _ in range(2)] == [3, 3]
    run = load(tmp_path / "run")
    steps = run.table("steps").to_pylist()
    assert [(row["epoch"], row["seq"]) for row in steps] == [(e, s) for e in (0, 1) for s in range(3)]
    assert {row["ready_batches"] for row in steps} == {None}
    assert "pipe: the inside of a DataPipe" in run.meta.not_observed


def test_what_writing_costs_a_step_is_told(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        assert len(list(session.loader(cases.Squares(8), batch_size=2))) == 4
    assert 0 < load(tmp_path / "run").meta.overhead.flush_ns < 1e9


def test_a_run_carries_the_versions_that_its_figures_depend_on(tmp_path: Path) -> None:
    with Session(tmp_path / "run"):
        pass
    meta = load(tmp_path / "run").meta
    assert {"pipeprof", "torch", "numpy", "pyarrow"} <= set(meta.packages)
    assert meta.machine.python == platform.python_version()


NO_ROOM = (
    "RuntimeError: Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback\n"
    "RuntimeError: unable to write to file </torch_7_8_9>: No space left on device (28)\n",
    "unable to open shared memory object </torch_7_8_9> in read-write mode: No space left on device",
    "OSError: [Errno 28] No space left on device: '/dev/shm/x'",
    "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
    "dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
)


@pytest.mark.parametrize("error", NO_ROOM)
def test_a_full_dev_shm_is_told_with_its_size_and_the_remedy(
    error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_facts, "shared_memory_bytes", lambda: (1 << 20, 64 << 20))
    (told,) = session_facts.ended(RunMeta(), error, ()).warnings
    assert "no room in /dev/shm, which has 67.1 MB, 1.05 MB of them free now" in told
    assert "--shm-size" in told


def test_another_full_disk_is_not_taken_for_dev_shm(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"), Session(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/checkpoint.pt")
    meta = load(tmp_path / "run").meta
    assert meta.warnings == () and "No space left on device" in (meta.error or "")
