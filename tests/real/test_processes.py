"""Processes that a traced script starts, and the ways in which they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load as analysed
from pipeprof.record.reader import load
from tests.forked import Program, verb

HERE = Path(__file__).parent


def trace(script: str, *arguments: str, cwd: Path, out: str = "out") -> subprocess.CompletedProcess[str]:
    return Program(verb("trace", "--out", out, str(HERE / script), *arguments), cwd).finished()


def steps_of(run: Path) -> int:
    return load(run).table("steps").num_rows


@pytest.mark.parametrize(
    "how",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.heavy),
        pytest.param("forkserver", marks=pytest.mark.heavy),
    ],
)
def test_children_that_train_are_observed_with_their_workers(how: str, tmp_path: Path) -> None:
    traced = Program(
        verb("trace", "--out", "out", "--steps", "1000", str(HERE / "spawned_processes.py"), how), tmp_path
    ).finished()
    assert "were not tried in those that it started" in traced.stderr, traced.stderr
    assert traced.returncode == 0, traced.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["process-1", "process-2"]
    for run in out.iterdir():
        assert (steps_of(run), load(run).status) == (40, "complete")
        assert set(load(run).table("batches")["worker"].to_pylist()) == {0}, (
            "the inside of the worker is seen"
        )
        assert f"{run.name} · spawned_processes.py · 40 steps measured" in traced.stderr
    shown = Program(verb("report", "out", "--json"), tmp_path).finished()
    answers = json.loads(shown.stdout)["processes"]
    assert [answers[name]["steps"] for name in ("process-1", "process-2")] == [40, 40]


@pytest.mark.heavy
def test_the_one_process_that_a_launcher_starts_is_reported_as_if_it_was_traced(tmp_path: Path) -> None:
    traced = trace("spawned_processes.py", "subprocess", cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert steps_of(tmp_path / "out") == 40
    assert "Where each step's time went" in traced.stderr
    assert not list((tmp_path / "out").glob("process-*"))


def test_a_rank_that_the_script_made_of_itself_is_judged(tmp_path: Path) -> None:
    traced = trace("env_rank_set_by_script.py", cwd=tmp_path, out="out/job")
    assert traced.returncode == 0, traced.stderr
    page = tmp_path / "out" / "job" / "rank-0" / "report.html"
    assert "Report: out/job/rank-0/report.html" in traced.stderr and page.exists()
    found = analysed(page.parent)
    assert (found.run.meta.rank, found.verdict.measured.steps) == (0, 40)
    assert "rank 1 of 2" in found.verdict.measured.not_observed


def test_a_script_that_ends_by_os_exit_loses_nothing_and_is_told_of(tmp_path: Path) -> None:
    traced = Program(
        verb("trace", "--no-report", "--out", "out", str(HERE / "ended_by_os_exit.py")), tmp_path
    ).finished()
    assert traced.returncode == 3
    run = load(tmp_path / "out")
    assert (run.status, run.table("steps").num_rows) == ("failed", 64)
    assert any("os._exit(3)" in warning for warning in run.meta.warnings)
    assert "os._exit(3)" in traced.stderr


NOT_OBSERVED = """
import os, subprocess, sys
from torch.utils.data import DataLoader
without = {name: text for name, text in os.environ.items() if "PIPEPROF" not in name and name != "PYTHONPATH"}
subprocess.run([sys.executable, "-c", "pass", "--token=secret"], env=without, check=True)
for _ in DataLoader(range(80), batch_size=4): pass
"""


def test_a_program_that_is_not_observed_is_named(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(NOT_OBSERVED)
    traced = Program(verb("trace", "--no-report", "--out", "out", "starts.py"), tmp_path).finished()
    assert traced.returncode == 0, traced.stderr
    (told,) = [what for what in load(tmp_path / "out").meta.not_observed if "start-up hook" in what]
    assert told.startswith("python -c … (process ")
    assert told in " ".join(traced.stderr.split())
    assert "secret" not in traced.stderr


def own_python(
    *arguments: str, cwd: Path, also: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter that has the start-up hook, with one more directory on its path."""
    hook = Path(sys.modules["pipeprof"].__file__ or "").parent
    path = [str(hook / "startup"), *([str(also)] if also else []), str(hook.parent)]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_sitecustomize_of_the_users_is_run_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\n")
    done = own_python(
        "-c", "import sitecustomize; print(sitecustomize.__file__)", cwd=tmp_path, also=tmp_path
    )
    assert done.stdout.split() == ["theirs", str(tmp_path / "sitecustomize.py")], done.stderr


@pytest.mark.heavy
def test_a_signal_ends_an_observed_process_with_a_whole_record(tmp_path: Path) -> None:
    done = own_python(str(HERE / "stopped.py"), cwd=tmp_path, PIPEPROF_TRACE="runs/x")
    assert done.returncode == -signal.SIGTERM
    run = load(tmp_path / "runs" / "x")
    assert (run.status, run.meta.signal) == ("interrupted", "SIGTERM")
    assert run.table("steps").num_rows >= 300


@pytest.mark.slow
def test_a_variable_alone_has_a_process_observed(tmp_path: Path) -> None:
    done = own_python(str(HERE / "ended_by_os_exit.py"), cwd=tmp_path, PIPEPROF_TRACE="runs/x")
    assert done.returncode == 3, done.stderr
    assert steps_of(tmp_path / "runs" / "x") == 64
    assert load(tmp_path / "runs" / "x").meta.name == "ended_by_os_exit.py"


def test_a_process_without_loaders_writes_nothing_and_imports_nothing_of_ours(tmp_path: Path) -> None:
    code = "import sys; print([name for name in sys.modules if 'pipeprof' in name or name == 'torch'])"
    done = own_python("-c", code, cwd=tmp_path, PIPEPROF_TRACE="runs/x")
    assert done.stderr == ""
    assert done.stdout.strip() == str(
        ["pipeprof", "pipeprof.startup", "pipeprof.environment", "pipeprof.startup.hook"]
    )
    assert own_python("-c", code, cwd=tmp_path, PIPEPROF_TRACE="").stderr == ""
    assert not list(tmp_path.iterdir())
