"""Where each rank of a job writes: its own part, of its own job, whatever the others do."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.errors import TraceError
from pipeprof.measure.session import job as ranks
from pipeprof.measure.session.session import Session
from pipeprof.record import directories, reader
from pipeprof.record.decode import encode
from pipeprof.record.meta import RunMeta
from tests.measure.session.loader_cases import Squares

JOB = {
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}


def become(monkeypatch: pytest.MonkeyPatch, rank: int, **environment: str) -> None:
    for name, value in {**JOB, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment}.items():
        monkeypatch.setenv(name, value)


def run_into(out: Path) -> Path:
    with Session(out) as session:
        for _ in session.loader(Squares(), batch_size=4):
            pass
    return session.directory


def test_outside_a_job_a_run_is_written_as_ever(tmp_path: Path) -> None:
    assert ranks.here() is None
    assert run_into(tmp_path / "run") == tmp_path / "run"
    assert reader.load(tmp_path / "run").meta.rank is None


def test_a_job_of_one_is_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, 0, WORLD_SIZE="1")
    assert run_into(tmp_path / "run") == tmp_path / "run"


def test_each_rank_writes_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 3):
        become(monkeypatch, rank)
        assert run_into(tmp_path / "job") == tmp_path / "job" / f"rank-{rank}"
    meta = reader.load(tmp_path / "job" / "rank-3").meta
    assert (meta.rank, meta.world_size, meta.local_rank, meta.node) == (3, 4, 3, 0)
    assert meta.host
    assert encode(meta.job) == json.loads((tmp_path / "job" / "job.json").read_text())
    assert list(directories.parts(tmp_path / "job")) == [0, 3]


def test_the_wrapper_and_a_saved_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, 1)
    with pipeprof.profile(DataLoader(Squares(), batch_size=4), out=tmp_path / "job") as loader:
        for _ in loader:
            pass
        assert loader.save(tmp_path / "copy") == tmp_path / "copy" / "rank-1"  # type: ignore[attr-defined]
    assert reader.load(tmp_path / "job" / "rank-1").status == "complete"


def test_two_jobs_in_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, 0)
    run_into(tmp_path / "job")
    before = {path: path.read_bytes() for path in (tmp_path / "job").rglob("*.*")}
    become(monkeypatch, 1, MASTER_PORT="29501")
    with pytest.raises(TraceError, match="is the run directory of another job") as error:
        Session(tmp_path / "job")
    assert "29500" in str(error.value)
    assert "--out" in str(error.value)
    assert {path: path.read_bytes() for path in (tmp_path / "job").rglob("*.*")} == before


def test_a_second_job_of_the_same_address_is_known_by_its_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, 0)
    run_into(tmp_path / "job")
    node = json.loads((tmp_path / "job" / "node-0.json").read_text())
    (tmp_path / "job" / "node-0.json").write_text(json.dumps({**node, "started": node["started"] - 100}))
    become(monkeypatch, 1)
    with pytest.raises(TraceError, match="another job"):
        Session(tmp_path / "job")


def without_torchrun(monkeypatch: pytest.MonkeyPatch, rank: int, **environment: str) -> None:
    """As under `srun` or `mpirun`."""
    become(monkeypatch, rank, **environment)
    for name in ("TORCHELASTIC_RUN_ID", "GROUP_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name)


@pytest.mark.parametrize("scheduler", ["SLURM_JOB_ID", "PMIX_NAMESPACE", "PBS_JOBID"])
def test_without_torchrun_two_jobs_are_told_apart_by_their_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    without_torchrun(monkeypatch, 0, **{scheduler: "17"})
    ranks.own_directory(tmp_path / "job")
    without_torchrun(monkeypatch, 1, **{scheduler: "17"})
    ranks.own_directory(tmp_path / "job")
    without_torchrun(monkeypatch, 1, **{scheduler: "18"})
    with pytest.raises(TraceError, match=f"another job.*{scheduler} 17"):
        ranks.own_directory(tmp_path / "job")


@pytest.mark.parametrize(("address", "known"), [("127.0.0.1", 4), ("node-7", None)])
def test_ranks_that_meet_at_their_own_nodes_address_are_all_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, known: int | None
) -> None:
    """As with Lightning's own launcher, which does not tell."""
    without_torchrun(monkeypatch, 2, MASTER_ADDR=address)
    meta = reader.load(run_into(tmp_path / "job")).meta
    assert meta.local_world_size == known
    assert any("ranks on this node" in one for one in meta.not_observed) is (known is None)


def test_a_marker_that_another_rank_is_writing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems without links, where it is there before it is whole."""
    become(monkeypatch, 0)
    ranks.own_directory(tmp_path / "job")
    whole = (tmp_path / "job" / "job.json").read_text()
    (tmp_path / "job" / "job.json").write_text(whole[:9])
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            (tmp_path / "job" / "job.json").write_text(whole)

    monkeypatch.setattr(time, "sleep", sleep)
    become(monkeypatch, 1)
    assert ranks.own_directory(tmp_path / "job") == tmp_path / "job" / "rank-1"
    assert len(waited) == 2


def test_a_marker_that_stays_torn_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.json").touch()
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept_s))
    become(monkeypatch, 1)
    with pytest.raises(TraceError, match=r"job\.json is damaged"):
        ranks.own_directory(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_markers_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for rank in (0, 1):
        become(monkeypatch, rank)
        assert ranks.own_directory(tmp_path / "job") == tmp_path / "job" / f"rank-{rank}"
    become(monkeypatch, 2, MASTER_PORT="29501")
    with pytest.raises(TraceError, match="another job"):
        ranks.own_directory(tmp_path / "job")


def test_without_torchrun_ranks_of_one_job_may_have_started_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under SLURM, or with one container a rank: other hosts and other launchers are the same job."""
    for rank, launcher in ((0, 0), (1, 4711)):
        without_torchrun(monkeypatch, rank)
        monkeypatch.setattr(os, "getppid", lambda launcher=launcher: launcher)
        monkeypatch.setattr(socket, "gethostname", lambda rank=rank: f"host{rank}")
        assert ranks.own_directory(tmp_path / "job") == tmp_path / "job" / f"rank-{rank}"
        assert ranks.with_rank(RunMeta()).host == f"host{rank}"
        assert ranks.directory_for("train") == Path("runs/train-127.0.0.1_29500")


def test_the_same_rank_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, 0)
    run_into(tmp_path / "job")
    with pytest.raises(TraceError, match="rank-0 already holds a run"):
        Session(tmp_path / "job")


def test_a_plain_run_is_not_mixed_with_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_into(tmp_path / "run")
    become(monkeypatch, 0)
    with pytest.raises(TraceError, match="already holds a run"):
        Session(tmp_path / "run")
    assert not directories.parts(tmp_path / "run")


def test_a_job_that_began_again_writes_beside_its_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, 0)
    run_into(tmp_path / "job")
    become(monkeypatch, 0, TORCHELASTIC_RESTART_COUNT="1", MASTER_PORT="29777")
    assert run_into(tmp_path / "job") == tmp_path / "job" / "restart-1" / "rank-0"


def test_a_rank_that_may_not_write_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unwritable = forbid(tmp_path / "job", 1)
    become(monkeypatch, 1)
    session = Session(tmp_path / "job")
    assert session.unwritten is not None
    assert "rank 1 goes on and is not recorded" in capfd.readouterr().err
    assert sum(1 for _ in session.loader(Squares(), batch_size=4)) > 0
    assert session.summary()["steps"] > 0
    session.close()
    session.discard()
    assert not (unwritable / "run.json").exists()
    become(monkeypatch, 0)
    assert reader.load(run_into(tmp_path / "job")).status == "complete"


def forbid(job: Path, rank: int) -> Path:
    """Make the part of `rank` a directory that nobody can write to, not even root."""
    job.mkdir(exist_ok=True)
    (job / f"rank-{rank}").symlink_to("/sys/kernel")
    return job / f"rank-{rank}"


def test_all_ranks_of_a_job_name_its_directory_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked_in_children(monkeypatch, lambda: str(ranks.directory_for("train")))
    assert len(set(found)) == 1
    assert found[0].startswith("runs/train-2")
    many = asked_in_children(
        monkeypatch,
        lambda: str(ranks.directory_for("train")),
        LOCAL_WORLD_SIZE="2",
        TORCHELASTIC_RUN_ID="night/7",
    )
    assert set(many) == {"runs/train-night_7"}


def test_markers_put_down_at_the_same_moment_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked_in_children(monkeypatch, lambda: str(ranks.own_directory(tmp_path / "job")))
    assert sorted(found) == [str(tmp_path / "job" / f"rank-{rank}") for rank in range(4)]
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["job.json", "node-0.json"]


def asked_in_children(monkeypatch: pytest.MonkeyPatch, ask: Any, **environment: str) -> list[str]:
    context = get_context("fork")
    queue = context.SimpleQueue()

    def child(rank: int) -> None:
        os.environ["RANK"] = str(rank)
        queue.put(ask())

    become(monkeypatch, 0, **environment)
    children = [context.Process(target=child, args=(rank,)) for rank in range(4)]
    for process in children:
        process.start()
    found = [queue.get() for _ in children]
    for process in children:
        process.join()
    return found


def test_ranks_without_torchruns_environment_are_asked_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    assert ranks.own_directory(tmp_path) == tmp_path / "rank-5"


def test_a_run_moves_to_its_part_when_its_process_becomes_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(tmp_path / "job") as session:
        loader = session.loader(Squares(), batch_size=4)
        taken = len(list(loader))
        session.flush()
        become(monkeypatch, 2)
        session.take_place()
        taken += len(list(loader))
    assert session.directory == tmp_path / "job" / "rank-2"
    assert not (tmp_path / "job" / "run.json").exists()
    run = reader.load(session.directory)
    assert (run.meta.rank, run.status, run.table("steps").num_rows) == (2, "complete", taken)
