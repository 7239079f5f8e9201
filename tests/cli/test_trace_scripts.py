"""`pipeprof trace` on scripts that know nothing of it: the same output, the same exit code, and a run."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeprof.record.reader import load
from tests.forked import Program, verb

SCRIPTS = Path(__file__).parent.parent / "scripts"


def trace(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return Program(verb("trace", "--out", "run", *arguments), cwd).finished()


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=110, check=False
    )


def untraced(script: str, cwd: Path) -> str:
    def main() -> None:
        sys.argv = [script]
        runpy.run_path(script, run_name="__main__")

    return Program(main, cwd).finished().stdout


def losses(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("loss")]


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ("plain.py", 12),
        pytest.param("under_lightning.py", 12 + 8, marks=pytest.mark.slow),
        pytest.param("under_accelerate.py", 12, marks=pytest.mark.slow),
    ],
)
def test_a_script_runs_as_without_us(script: str, steps: int, tmp_path: Path) -> None:
    path = str(SCRIPTS / script)
    traced = trace(path, cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert losses(traced.stdout)
    if script == "plain.py":
        assert losses(traced.stdout) == losses(untraced(path, tmp_path))
    run = load(tmp_path / "run")
    assert (run.status, run.meta.kind) == ("complete", "trace")
    assert len(run.table("steps")) == steps
    assert (tmp_path / "run" / "report.html").exists()
    assert "Where each step's time went" in traced.stderr


@pytest.mark.slow
def test_a_script_in_an_interpreter_of_its_own(tmp_path: Path) -> None:
    path = str(SCRIPTS / "plain.py")
    traced = python("-m", "pipeprof", "trace", "--out", "run", path, cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert losses(traced.stdout) == losses(python(path, cwd=tmp_path).stdout)
    assert len(load(tmp_path / "run").table("steps")) == 12


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [("error", 1, "failed"), ("exit", 7, "failed"), ("interrupt", 130, "interrupted")],
)
def test_a_script_that_ends_badly(end: str, code: int, status: str, tmp_path: Path) -> None:
    script = str(SCRIPTS / "plain.py")
    traced = trace("--no-report", script, "--workers", "0", "--end", end, cwd=tmp_path)
    assert traced.returncode == code
    assert load(tmp_path / "run").status == status
    assert len(load(tmp_path / "run").table("steps")) == 12
    assert "Where each step's time went" in traced.stderr
    if end == "error":
        assert "ValueError: this script ends badly" in traced.stderr
        assert "pipeprof/measure" not in traced.stderr.split("Traceback")[1]


ENDLESS = """
import time
from pathlib import Path
from torch.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 10**6
    def __getitem__(self, index):
        time.sleep(0.002)
        return index

for step, _ in enumerate(DataLoader(Slow(), batch_size=2, num_workers=2)):
    if step == 30:
        Path("ready").touch()
"""


def test_ctrl_c_ends_a_script_with_workers(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    program = Program(verb("trace", "--out", "run", "--no-report", "endless.py"), tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and program.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(program.pid, signal.SIGINT)  # a terminal sends it to the workers too
    traced = program.finished()
    assert traced.returncode == 130, traced.stderr
    assert "Where each step's time went" in traced.stderr
    assert "KeyboardInterrupt" in traced.stderr
    run = load(tmp_path / "run")
    assert run.status == "interrupted"
    assert len(run.table("steps")) > 30
    assert not [row for row in run.table("events").to_pylist() if row["kind"] == "worker_lost"]


def test_a_script_that_changes_its_directory(tmp_path: Path) -> None:
    """As Hydra does. It has its path in `__file__`, as Python would tell it."""
    (tmp_path / "moves.py").write_text(
        "import os\n"
        "os.mkdir('elsewhere'), os.chdir('elsewhere')\n"
        "from torch.utils.data import DataLoader\n"
        "for _ in range(2): assert len(list(DataLoader(range(8), batch_size=2))) == 4\n"
        "print(os.path.isfile(__file__))\n"
    )
    traced = trace("moves.py", cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert traced.stdout.startswith("True")
    run = load(tmp_path / "run")
    assert (run.status, len(run.table("steps"))) == ("complete", 8)
    assert (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.heavy
def test_a_module_with_spawned_workers(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text((SCRIPTS / "plain.py").read_text())
    traced = python(
        "-m", "pipeprof", "trace", "--out", "run", "--no-report", "-m", "training", "--start", "spawn",
        cwd=tmp_path,
    )  # fmt: skip
    assert traced.returncode == 0, traced.stderr
    run = load(tmp_path / "run")
    assert len(run.table("steps")) == 12
    assert len(run.table("batches")) == 12
    assert run.meta.loaders[0].start_method == "spawn"


def test_sensors_are_read_on_request(tmp_path: Path) -> None:
    script = str(SCRIPTS / "plain.py")
    told = ("--telemetry-hz", "50", "--no-report", script, "--workers", "0", "--end", "error")
    traced = trace(*told, cwd=tmp_path)
    assert traced.returncode == 1, "the script's own exit code"
    assert "pipeprof/measure" not in traced.stderr.split("Traceback")[1]
    run = load(tmp_path / "run")
    assert run.meta.telemetry.rate_hz == 50
    assert "memory.used_bytes" in run.table("telemetry")["sensor"].to_pylist()
    refused = trace("--telemetry-hz", "500", script, cwd=tmp_path / "run")
    assert refused.returncode == 2
    assert "telemetry_hz is 500" in refused.stderr


def test_no_such_script(tmp_path: Path) -> None:
    traced = trace("missing.py", cwd=tmp_path)
    assert traced.returncode == 2
    assert "missing.py cannot be read" in traced.stderr
    assert "Traceback" not in traced.stderr
    assert not list(tmp_path.iterdir())


def test_a_script_is_compiled_as_python_does_it(tmp_path: Path) -> None:
    """None of our own `from __future__` applies to it."""
    (tmp_path / "settings.py").write_text(
        "class Settings:\n    rate: float = 0.1\n"
        "step: int = 3\n"
        "assert Settings.__annotations__ == {'rate': float} and __annotations__ == {'step': int}\n"
        "assert __spec__ is None and __package__ is None and __loader__ is not None\n"
        "print(Settings.__annotations__['rate']('2'))\n"
    )
    assert python("settings.py", cwd=tmp_path).stdout == "2.0\n"
    traced = trace("settings.py", cwd=tmp_path)
    assert (traced.returncode, traced.stdout) == (0, "2.0\n"), traced.stderr


LOADS = "from torch.utils.data import DataLoader\nfor b in DataLoader(range(40), batch_size=4): pass\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_standard_output_is_the_scripts_alone(quiet: bool, tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(LOADS + "print('{}')\n")
    traced = trace(*["--quiet"] * quiet, "--no-report", "prints.py", cwd=tmp_path)
    assert (traced.returncode, traced.stdout) == (0, "{}\n")
    assert bool(traced.stderr) != quiet


def test_a_script_may_close_its_output(tmp_path: Path) -> None:
    (tmp_path / "closes.py").write_text("import sys\n" + LOADS + "sys.stdout.close()\n")
    traced = trace("--no-report", "closes.py", cwd=tmp_path)
    assert traced.returncode == 0 and "Traceback" not in traced.stderr


def test_an_empty_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(LOADS)
    refused = Program(verb("trace", "--out", "", "prints.py"), tmp_path).finished()
    assert refused.returncode == 2 and "--out" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["prints.py"]
