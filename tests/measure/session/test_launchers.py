"""The table of launchers, each faked by the variables that it sets, and the choice of some ranks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipeprof.environment import RANKS
from pipeprof.errors import MeasureError
from pipeprof.measure.session import job as ranks
from pipeprof.measure.session.launchers import LAUNCHERS, place_in
from pipeprof.measure.session.processes.chosen import choose, chosen_here, read_choice
from pipeprof.record import directories, reader
from pipeprof.record.meta import ChosenRanks
from tests.forked import Program, verb
from tests.measure.session.test_ranks import become

TORCH = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "n0"}
SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "2"}
LIGHTNING = {"WORLD_SIZE": "8", "LOCAL_RANK": "3", "NODE_RANK": "0", "MASTER_ADDR": "n0"}
FAKED: dict[str, tuple[dict[str, str], tuple[int | None, ...]]] = {
    "torchrun": ({**TORCH, "GROUP_RANK": "1", "TORCHELASTIC_RUN_ID": "7"}, (9, 16, 1, 8, 1)),
    "accelerate on two nodes": (
        {**TORCH, "GROUP_RANK": "1", "ACCELERATE_USE_CPU": "1"},
        (9, 16, 1, 8, 1),
    ),
    "accelerate's notebook": ({**TORCH, "NODE_RANK": "1", "FORK_LAUNCHED": "1"}, (9, 16, 1, 8, 1)),
    "Ray Train": ({**TORCH, "NODE_RANK": "1", "RAY_JOB_ID": "01000000"}, (9, 16, 1, 8, 1)),
    "srun": (SLURM, (5, 8, 1, None, 2)),
    "srun, as many on each node": ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x4)"}, (5, 8, 1, 2, 2)),
    "srun, more on some nodes": ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2),3,1"}, (5, 8, 1, 3, 2)),
    "srun, a list that is cut": ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, (5, 8, 1, None, 2)),
    "srun, one node": ({**SLURM, "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "8"}, (5, 8, 1, 8, 0)),
    "Open MPI": (
        {
            "OMPI_COMM_WORLD_RANK": "3",
            "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            "OMPI_COMM_WORLD_NODE_RANK": "1",
        },
        (3, 4, 1, 2, 1),
    ),
    "MVAPICH2": (
        {
            "MV2_COMM_WORLD_RANK": "3",
            "MV2_COMM_WORLD_SIZE": "4",
            "MV2_COMM_WORLD_LOCAL_RANK": "1",
            "MV2_COMM_WORLD_LOCAL_SIZE": "2",
        },
        (3, 4, 1, 2, 1),
    ),
    "MPICH": ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2, None, None, None)),
    "Intel MPI": (
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        (1, 2, 1, 2, 0),
    ),
    "Lightning, first node": (LIGHTNING, (3, 8, 3, None, 0)),
    "Lightning, second node": ({**LIGHTNING, "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (7, 8, 3, 4, 1)),
    "Kubernetes, with a size": ({"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "4"}, (2, 4, None, None, None)),
    "Kubernetes": ({"JOB_COMPLETION_INDEX": "2"}, (2, None, None, None, None)),
    "Kubernetes that starts torchrun": ({**TORCH, "JOB_COMPLETION_INDEX": "1"}, (9, 16, 1, 8, 1)),
}


@pytest.mark.parametrize("launcher", FAKED)
def test_each_launcher_tells_a_rank_its_place(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, place = FAKED[launcher]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    rank = ranks.here()
    assert rank is not None
    assert rank[:5] == place


def test_every_row_of_the_table_is_faked() -> None:
    by = [next(one for one in LAUNCHERS if place_in(variables, (one,))) for variables, _ in FAKED.values()]
    assert set(by) == set(LAUNCHERS)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "1", **SLURM},  # a sweep: each task is a job of one
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "12"},  # a batch script
        {"NODE_RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "8"},  # not yet to be told which
        {"JOB_COMPLETION_INDEX": "0", "WORLD_SIZE": "1"},
        {"RANK": "x", "WORLD_SIZE": "4"},
    ],
)
def test_what_is_no_rank_of_several(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.here() is None


def test_an_indexed_job_is_known_by_the_names_of_its_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in ("0", "11"):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
        monkeypatch.setattr(socket, "gethostname", lambda index=index: f"train-{index}")
        ranks.own_directory(tmp_path / "job")
    assert list(tmp_path.joinpath("job").glob("rank-*")) == []
    monkeypatch.setattr(socket, "gethostname", lambda: "other-11")
    with pytest.raises(reader.TraceError, match="Kubernetes train"):
        ranks.own_directory(tmp_path / "job")


# -- some of the ranks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "observed"),
    [("0,8,16", {0, 8, 16}), ("every 8", {0, 8, 16}), (" 3 ", {3}), ("every 1", set(range(20)))],
)
def test_a_choice_of_ranks(text: str, observed: set[int]) -> None:
    chosen = read_choice(text, "--ranks")
    assert {rank for rank in range(20) if chosen.holds(rank)} == observed
    assert chosen.first == min(observed)
    assert read_choice(chosen.text, "itself") == chosen


@pytest.mark.parametrize("text", ["", "a", "0,", "every", "every 0", "-1", "1.5", "99999999", "every -2"])
def test_a_choice_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(MeasureError, match="names no ranks"):
        read_choice(text, "--ranks")


def test_the_options_are_handed_on_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RANKS, raising=False)
    assert choose(None, None) == ChosenRanks()
    monkeypatch.setenv(RANKS, "every 4")
    assert choose(None, None) == ChosenRanks(every=4)
    choose("1, 3", None)
    assert chosen_here() == ChosenRanks(ranks=(1, 3))
    choose(None, 2)
    assert chosen_here() == ChosenRanks(every=2)
    with pytest.raises(MeasureError, match="both"):
        choose("1", 2)


SCRIPT = """
from torch.utils.data import DataLoader
print(len(list(DataLoader(list(range(8)), batch_size=4))))
raise SystemExit(3)
"""


@pytest.mark.parametrize("rank", [1, 2])
def test_ranks_that_are_not_chosen_run_untouched(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    become(monkeypatch, rank)
    done = Program(verb("trace", "--every", "2", "--out", "job", "train.py"), tmp_path).finished()
    assert (done.returncode, done.stdout.split()[0]) == (3, "2")
    observed = rank % 2 == 0
    assert list(directories.parts(tmp_path / "job")) == ([rank] if observed else [])
    if observed:
        assert reader.load(tmp_path / "job" / "rank-2").meta.chosen == ChosenRanks(every=2)
    else:
        assert done.stderr == ""


def test_a_bad_choice_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = Program(verb("trace", "--ranks", "first", "train.py"), tmp_path).finished()
    assert done.returncode == 2
    assert "--ranks is 'first'" in done.stderr
    assert "Traceback" not in done.stderr
