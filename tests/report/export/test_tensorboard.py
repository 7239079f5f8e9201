"""TensorBoard scalars, read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.report.export import tensorboard
from tests.factory import MS, Plan, make_run

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

SLOW = {"read": 30 * MS, "decode": 60 * MS, "stage:</script>": 2 * MS, "collate": 4 * MS}


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = reader.EventAccumulator(str(directory), size_guidance={reader.SCALARS: 0})
    found.Reload()
    return {tag: [(x.step, x.value) for x in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return load(make_run(tmp_path_factory.mktemp("runs") / "run", Plan(batches=120, stages=SLOW)))


def test_utilisation_stall_and_stage_times_are_those_of_the_run(answer: Analysis, tmp_path: Path) -> None:
    told = scalars(tensorboard.write(answer, tmp_path / "board"))
    said = answer.verdict.as_dict()
    busy = np.mean([value for _, value in told["utilisation/computing"]])
    waiting = np.mean([value for _, value in told["stall/waiting for data"]])
    assert busy == pytest.approx(said["utilization"], abs=0.02)
    assert waiting == pytest.approx(said["verdict"]["stall_share"], abs=0.02)
    speed = [value for _, value in told["speed/samples per second"]]
    assert np.mean(speed) == pytest.approx(said["throughput_samples_per_s"], rel=0.1)
    for name, ns in SLOW.items():
        values = [value for _, value in told[f"stage ms a batch/{name}"]]
        assert values == pytest.approx([ns / MS] * len(values), rel=1e-3)


def test_the_steps_are_the_measured_ones_in_order(answer: Analysis, tmp_path: Path) -> None:
    steps = [
        step for step, _ in scalars(tensorboard.write(answer, tmp_path / "board"))["stall/waiting for data"]
    ]
    assert steps == sorted(steps)
    assert len(steps) == 115 // 4
    assert steps[0] >= 5
    assert steps[-1] == 119


def test_a_long_run_is_thinned(answer: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "POINTS", 10)
    points = scalars(tensorboard.write(answer, tmp_path / "board"))["stall/waiting for data"]
    assert len(points) == 10
    assert points[-1][0] == 119


@pytest.mark.parametrize(
    "plan", [Plan(workers=0), Plan(accelerator="none"), Plan(epochs=3, batches=20), Plan(batches=6)]
)
def test_runs_of_every_kind(plan: Plan, tmp_path: Path) -> None:
    answer = load(make_run(tmp_path / "run", plan))
    told = scalars(tensorboard.write(answer, tmp_path / "board"))
    assert all(np.isfinite(value) for points in told.values() for _, value in points)
    assert {"utilisation/computing", "stall/waiting for data", "stage ms a batch/decode"} <= set(told)


def test_without_tensorboard_the_error_says_how_to_get_it(
    answer: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(TraceError, match=r"pip install 'pipeprof\[tensorboard\]'"):
        tensorboard.write(answer, tmp_path / "board")
    assert not list(tmp_path.iterdir())


def test_nothing_measured_is_refused(tmp_path: Path) -> None:
    answer = load(make_run(tmp_path / "run", Plan(batches=4, warmup=9)))
    with pytest.raises(TraceError, match="no measured step"):
        tensorboard.write(answer, tmp_path / "board")


def test_what_is_there_is_not_overwritten(answer: Analysis, tmp_path: Path) -> None:
    tensorboard.write(answer, tmp_path / "board")
    with pytest.raises(TraceError, match="exists already"):
        tensorboard.write(answer, tmp_path / "board")


def test_the_verb_says_where_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    told = CliRunner().invoke(cli, ["export", str(run), "--to", "tensorboard"])
    assert told.exit_code == 0, told.output
    assert told.output.strip() == str(run / "tensorboard")
    assert scalars(run / "tensorboard")
