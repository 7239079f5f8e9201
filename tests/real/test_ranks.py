"""Jobs of two ranks that a script or a launcher starts itself, traced with all their workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.record.reader import load
from tests.forked import Program, verb
from tests.integrations import needs
from tests.measure.bench.test_ranks_together import free_port

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
HERE = Path(__file__).parent
LAUNCH = "accelerate.commands.launch"
TWO = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no")
STARTED: dict[str, tuple[str, ...]] = {
    "spawn": (str(HERE / "ranks_by_spawn.py"), "PORT"),
    "lightning": (str(HERE / "ranks_by_lightning.py"),),
    "accelerate": ("-m", LAUNCH, *TWO, "--dynamo_backend", "no", str(HERE / "ranks_by_accelerate.py")),
}


@pytest.mark.parametrize(
    "how",
    [
        "spawn",
        pytest.param("lightning", marks=needs("lightning")),
        pytest.param("accelerate", marks=needs("accelerate")),
    ],
)
def test_both_ranks_are_observed_with_all_their_workers(how: str, tmp_path: Path) -> None:
    words = [str(free_port()) if word == "PORT" else word for word in STARTED[how]]
    traced = Program(verb("trace", "--out", "job", *words), tmp_path).finished(timeout_s=280)
    assert traced.returncode == 0, traced.stderr
    assert "pipeprof · 2 ranks" in traced.stderr
    assert "Report: job/report.html" in traced.stderr
    rows = merge([tmp_path / "job"]).ranks
    assert [(row.rank, row.steps, row.status) for row in rows] == [(0, 40, "complete"), (1, 40, "complete")]
    for row in rows:
        assert set(load(row.directory).table("batches")["worker"].to_pylist()) == {0, 1}
    assert not (tmp_path / "job" / "run.json").exists()
