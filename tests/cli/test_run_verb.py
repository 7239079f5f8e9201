"""`pipeprof run` as a user types it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeprof.record import reader
from pipeprof.scenario import ExpectPart
from pipeprof.scenario.expectation import misses
from tests.forked import Program, verb

SCENARIO = """
data: {format: tensor_files, samples: 64, sample_bytes: 4000}
storage: {tier: hdd}
loader: {batch_size: 4, workers: 2}
accelerator: {kind: emulated, step_ms: 10}
run: {steps: 40, warmup_steps: 5}
"""


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def pipeprof(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return Program(verb("run", *arguments), cwd).finished()


def test_one_command_ends_with_a_verdict_a_table_and_a_report(tmp_path: Path) -> None:
    """In an interpreter of its own, as a user starts it."""
    (tmp_path / "disk.yaml").write_text(SCENARIO + "expect: {min_stall: 0.5, band: highly}\n")
    command = [sys.executable, "-m", "pipeprof", "run", "disk.yaml", "--set", "run.steps=80"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"disk-\d{8}-\d{6}", directory.name)
    assert (directory / "report.html").stat().st_size > 100_000
    assert f"Report: runs/{directory.name}/report.html" in done.stdout
    assert "The emulated accelerator spent" in done.stdout
    assert "sum" in done.stdout
    assert "As this scenario expects." in done.stdout
    assert reader.load(directory).meta.scenario.text.startswith("\ndata:")


@pytest.mark.slow
def test_a_quiet_run_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk.yaml").write_text(SCENARIO)
    done = pipeprof("disk.yaml", "-q", "--out", "here", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "here" / "report.html").exists()


@pytest.mark.slow
def test_json_is_the_answers_dictionary_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "disk.yaml").write_text(SCENARIO)
    done = pipeprof(
        "disk.yaml", "--json", "--no-report", "--out", "here", "--set", "run.steps=30", cwd=tmp_path
    )
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert answer["status"] == "complete"
    assert answer["steps"] == 25
    assert sum(answer["ledger_ns"].values()) == answer["wall_ns"]
    assert not (tmp_path / "here" / "report.html").exists()


@pytest.mark.slow
def test_a_matrix_runs_each_cell_and_ends_in_one_page(tmp_path: Path) -> None:
    (tmp_path / "tiers.yaml").write_text(
        SCENARIO + "matrix: {storage.tier: [hdd, nvme], loader.workers: [0, 2]}\n"
    )
    done = pipeprof("tiers.yaml", "--out", "all", "--set", "run.steps=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "all").glob("*/run.json"))
    assert len(runs) == 4
    assert {reader.load(each).status for each in runs} == {"complete"}
    assert (tmp_path / "all" / "report.html").exists()
    assert "all/report.html" in done.stdout


def test_a_cell_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    models = SCENARIO.replace("emulated, step_ms: 10", "cpu").replace("hdd", "nvme").replace("4000", "12288")
    (tmp_path / "models.yaml").write_text(models + "matrix: {model.name: [resnet_18, two_layer_net]}\n")
    done = pipeprof("models.yaml", "--out", "all", "--no-report", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean resnet18?" in done.stderr
    (whole,) = (tmp_path / "all").glob("*/run.json")
    assert whole.parent.name == "models-name=two_layer_net"
    assert reader.load(whole.parent).status == "complete"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("accelerator.kind=cuda", "torch sees no device"),
        ("accelerator.kind=quantum", "accelerator.kind"),
        ("loader.workers=-1", "loader.workers"),
    ],
)
def test_what_cannot_run_is_one_error_and_writes_nothing(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "disk.yaml").write_text(SCENARIO.replace(", step_ms: 10", "").replace("4000", "12288"))
    done = pipeprof("disk.yaml", "--set", override, cwd=tmp_path)
    if "cuda" in override and done.returncode == 0:
        pytest.skip("there is a CUDA device here")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_strict_fails_where_the_scenario_does_not_keep_its_word(tmp_path: Path) -> None:
    (tmp_path / "disk.yaml").write_text(SCENARIO + "expect: {max_stall: 0.01}\n")
    done = pipeprof("disk.yaml", "--no-report", "--strict", "--set", "run.steps=30", cwd=tmp_path)
    assert done.returncode == 1
    assert "Unexpected for this scenario: the stall is" in done.stdout


@pytest.mark.slow
def test_a_shipped_scenario_takes_ones_own_images(tmp_path: Path) -> None:
    for number in range(64):
        place = tmp_path / "mine" / ("cats" if number % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (number * 3, 80, 120)).save(place / f"{number}.jpg")
    shipped = Path(__file__).parent.parent.parent / "scenarios" / "ssd_4workers.yaml"
    own = ("--set", "data.format=image_folder", "--set", f"data.path={tmp_path / 'mine'}")
    done = pipeprof(str(shipped), *own, "--set", "run.steps=12", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = reader.load(tmp_path / "run")
    assert (found.status, found.meta.data.samples) == ("complete", 64)
    assert (tmp_path / "run" / "report.html").exists()


def test_on_a_terminal_the_display_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "disk.yaml").write_text(SCENARIO)
    main, terminal = pty.openpty()
    program = Program(verb("run", "disk.yaml", "--no-report"), tmp_path, stderr=terminal)
    os.close(terminal)
    shown = _everything(main, program)
    os.close(main)
    assert program.finished().returncode == 0
    steps = [
        int(number) for number in re.findall(r"step\s+(\d+)", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    ]
    assert len(set(steps)) >= 3, "the steps are counted before one's eyes"
    assert steps == sorted(steps)
    assert "waiting for data" in shown


def _everything(terminal: int, program: Program) -> str:
    parts = []
    while program.alive or select.select([terminal], [], [], 0)[0]:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                parts.append(os.read(terminal, 65536))
            except OSError:  # the other side is closed
                break
    return b"".join(parts).decode(errors="replace")


def test_expectations_name_what_is_missed() -> None:
    answer = {"verdict": {"cause": "decode", "fix": "more-workers", "band": "highly", "stall_share": 0.4}}
    assert (
        misses(
            ExpectPart(cause=["decode"], fix=["more-workers", "ram"], band="highly", min_stall=0.3), answer
        )
        == []
    )
    assert misses(ExpectPart(cause=["h2d"], band="not", max_stall=0.05), answer) == [
        "the cause is decode, expected h2d",
        "the run is highly input-bound, expected not input-bound",
        "the stall is 40%, more than 5.0%",
    ]
    unknown = {"verdict": {"cause": "inconclusive", "fix": "none", "band": None, "stall_share": None}}
    assert misses(ExpectPart(max_stall=0.05), unknown) == ["the stall was not observed"]


COMPUTED = """
import torch
from torch.utils.data import Dataset

class Waves(Dataset):
    def __len__(self):
        return 256
    def __getitem__(self, index):
        return torch.sin(torch.arange(40_000.0) * index), index % 10
"""


@pytest.mark.slow
def test_an_imported_data_set_that_reads_nothing_is_answered(tmp_path: Path) -> None:
    """No other storage can be predicted for it; that is no failure of the run."""
    (tmp_path / "own_waves.py").write_text(COMPUTED)
    (tmp_path / "waves.yaml").write_text(
        "data: {format: imported, import: 'own_waves:Waves'}\n"
        "loader: {batch_size: 4, workers: 2}\n"
        "accelerator: {kind: emulated, step_ms: 5}\nrun: {steps: 40, warmup_steps: 5}\n"
    )
    done = pipeprof("waves.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    asked = Program(verb("predict", "run"), tmp_path).finished()
    assert asked.returncode == 0, asked.stderr
    refused = Program(verb("predict", "run", "--set", "storage.tier=nvme"), tmp_path).finished()
    assert refused.returncode == 3 and "no read was observed" in refused.stderr


def test_expectations_are_not_held_against_one_of_several_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.yaml").write_text(SCENARIO)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = pipeprof("disk.yaml", "--strict", cwd=tmp_path)
    assert done.returncode == 2
    assert "--strict holds the run of one process" in done.stderr
    assert not (tmp_path / "runs").exists()
