"""Find the ranks of a job by one of them, or by their launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader

from pipeprof.analyse.job.merge import merge
from pipeprof.errors import MeasureError
from pipeprof.measure.attach import asking, ranks
from pipeprof.measure.attach.asking import Answers, RankAnswer
from pipeprof.measure.attach.attach import Wanted
from pipeprof.measure.attach.ranks import ranks_of
from pipeprof.record.reader import load
from tests.forked import Program, verb
from tests.measure.attach import jobs
from tests.measure.bench.test_ranks_together import free_port


def test_ranks_are_the_launchers_children() -> None:
    source = "import os, time\nif os.fork() == 0: time.sleep(60)\ntime.sleep(60)"  # a worker has a RANK too
    command = [sys.executable, "-S", "-c", source]
    both = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank)}, start_new_session=True)
        for rank in (1, 0)
    ]
    try:
        pids = [process.pid for process in reversed(both)]
        deadline = time.monotonic() + 30
        while ranks_of(os.getpid()) != pids and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ranks_of(os.getpid()) == pids
        assert ranks_of(pids[1]) == pids
    finally:
        for process in both:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.mark.parametrize(
    ("parents", "answer"),
    [
        ({2: 1, 3: 1, 4: 2}, 1),
        ({2: 1, 3: 9}, "2 jobs of torchrun run on this node"),
        ({}, "no job of torchrun"),
    ],
)
def test_torchrun_is_found_by_its_ranks(
    monkeypatch: pytest.MonkeyPatch, parents: dict[int, int], answer: int | str
) -> None:
    rank = {"RANK": "0", "TORCHELASTIC_RUN_ID": "none"}  # a rank's worker has it too
    monkeypatch.setattr(ranks, "_processes", lambda: [1, *parents, 9])
    monkeypatch.setattr(ranks, "_environment", lambda pid: rank if pid in parents else {})
    monkeypatch.setattr(ranks, "_parent", parents.get)
    if isinstance(answer, int):
        assert ranks.torchrun() == answer
        return
    with pytest.raises(MeasureError, match=answer):
        ranks.torchrun()


TRAINS = """
import pathlib, sys, time, torch
from torch.utils.data import DataLoader, Dataset
class Slow(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.full((4,), float(index))
taken = 0
while not pathlib.Path("stop").exists():
    for batch in DataLoader(Slow(), 4, num_workers=2):
        taken += len(batch)
        if pathlib.Path("stop").exists(): break
        if taken == 40: open(f"ready-{__import__('os').environ['RANK']}", "w").close()
"""


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ptrace_right", "of_any_length")
def test_both_ranks_of_a_torchrun_are_observed_with_their_workers(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ["--master-port", str(free_port()), "train.py"]
    job = subprocess.Popen([*launcher, *port], cwd=tmp_path, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert time.monotonic() < deadline and job.poll() is None
            time.sleep(0.1)
        attached = Program(
            verb("attach", "--all-ranks", "--seconds", "60", "--steps", "40", "--out", "job", str(job.pid)),
            tmp_path,
        )
        done = attached.finished()
        assert done.returncode == 0, done.stderr
        assert "observed 2 ranks, and out of them again" in done.stderr
        rows = merge([tmp_path / "job"]).ranks
        assert [row.rank for row in rows] == [0, 1]
        assert all(row.steps >= 30 for row in rows)
        for row in rows:
            assert set(load(row.directory).table("batches")["worker"].to_pylist()) == {0, 1}
        (tmp_path / "stop").touch()
        assert job.wait(60) == 0, "the job ends as it would have"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def train_as(rank: int, directory: Path, workers: int) -> None:
    """Train as a rank that nobody has told from outside that it is one."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "1"}
    for _ in DataLoader(jobs.Numbers(), batch_size=4, num_workers=workers):
        (directory / f"ready-{rank}").touch()
        if (directory / "stop").exists():
            break


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("ptrace_right")
def test_ranks_that_have_set_their_number_themselves(tmp_path: Path) -> None:
    def launch() -> None:
        start_processes(train_as, (tmp_path, 1), nprocs=2, start_method="fork")

    launcher = Program(launch, tmp_path)
    try:
        deadline = time.monotonic() + 100
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert time.monotonic() < deadline and launcher.alive
            time.sleep(0.05)
        pids = ranks_of(launcher.pid)
        assert len(pids) == 2 and launcher.pid not in pids
        assert [ranks_of(pid) for pid in pids] == [pids, pids], "a rank's worker is none"
        entered: dict[int, int] = {}
        wanted = Wanted(tmp_path / "job", seconds=60.0, steps=20)
        ranks.attach_all(pids, wanted, lambda pid, workers: entered.update({pid: workers}))
        assert entered == dict.fromkeys(pids, 1)
        rows = merge([tmp_path / "job"]).ranks
        assert [(row.rank, load(row.directory).meta.pid) for row in rows] == list(enumerate(pids))
        (tmp_path / "stop").touch()
        assert launcher.finished(60).returncode == 0
    finally:
        if launcher.alive:
            launcher.kill()


def told(pid: int, rank: int, port: str = "1") -> RankAnswer:
    return RankAnswer(pid, rank, (2, port))


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({3: told(3, 0), 4: told(4, 1)}, [3, 4]),
        ({2: told(2, 0), 3: told(3, 1)}, [2, 3]),
        ({2: told(2, 0), 3: told(3, 0)}, [2]),
        ({2: told(2, 1), 8: told(8, 0)}, [8, 2]),
        ({2: told(2, 1), 1: told(1, 0)}, [1, 2]),
        ({2: told(2, 1), 8: told(8, 0, "2")}, [2]),
    ],
    ids=[
        "children of a launcher",
        "a launcher that is a rank",
        "a rank's helper takes itself for it",
        "a sibling",
        "a parent that is a rank",
        "a sibling of another job",
    ],
)
def test_what_ranks_say_of_themselves(
    monkeypatch: pytest.MonkeyPatch, answers: dict[int, RankAnswer], found: list[int]
) -> None:
    answering(monkeypatch, answers)
    assert ranks_of(2) == found


def answering(monkeypatch: pytest.MonkeyPatch, answers: dict[int, RankAnswer], silent: int = 0) -> None:
    """Let a process 1 with children 2 and 8, and 2 with 3 and 4, answer; one of them may not."""
    parents = {2: 1, 8: 1, 3: 2, 4: 2}

    def ask(pids: list[int]) -> Answers:
        return Answers(
            [answers[pid] for pid in pids if pid in answers], [pid for pid in pids if pid == silent]
        )

    monkeypatch.setattr(ranks, "_processes", lambda: [1, *parents])
    monkeypatch.setattr(ranks, "_parent", parents.get)
    monkeypatch.setattr(ranks, "_environment", lambda pid: {})
    monkeypatch.setattr(ranks, "started", lambda pid: 0)
    monkeypatch.setattr(ranks, "ask", ask)


@pytest.mark.parametrize(
    ("answers", "silent", "told_of"),
    [
        ({3: told(3, 0)}, 4, [4]),
        ({2: told(2, 1), 1: told(1, 0)}, 8, [8]),
        ({2: told(2, 1), 8: told(8, 0)}, 4, []),
    ],
    ids=["a child", "a sibling", "a child of a rank that is no launcher"],
)
def test_what_may_be_a_rank_and_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, answers: dict[int, RankAnswer], silent: int, told_of: list[int]
) -> None:
    answering(monkeypatch, answers, silent)
    heard: list[int] = []
    ranks_of(2, heard.append)
    assert heard == told_of


def test_a_silent_process_is_not_said_to_be_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {}, 2)
    with pytest.raises(MeasureError, match="process 2 did not say which it is"):
        ranks_of(2)


def test_a_process_without_ranks_is_one_error() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(MeasureError, match="is neither a rank of a job"):
                ranks_of(process.pid)
        finally:
            process.kill()


@pytest.mark.parametrize("is_late", [False, True])
def test_what_a_process_may_still_run_is_left_for_it(
    is_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher that waits in a call runs the entry when that ends, and Python prints if it is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(asking, "inject", lambda pid, control: None)
    monkeypatch.setattr(asking, "WORKER_PATIENCE_S", 0.0)
    monkeypatch.setattr(asking, "may_run_late", lambda: is_late)
    monkeypatch.setattr(asking, "_has_torch", lambda pid: True)
    assert asking.ask([os.getppid()]) == ([], [os.getppid()])
    assert len(list(tmp_path.iterdir())) == is_late
