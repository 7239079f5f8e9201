"""pipeprof under torchrun itself: interpreters of their own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.record import directories

pytestmark = pytest.mark.heavy
SCRIPTS = Path(__file__).parent.parent / "scripts"
SCENARIO = """
data: {format: tensor_files, samples: 512, sample_bytes: 4000}
storage: {tier: nvme}
loader: {batch_size: 4, workers: 1}
accelerator: {kind: emulated, step_ms: 5}
run: {steps: 30, warmup_steps: 5}
"""


def torchrun(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    job = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *job, "-m", "pipeprof", *arguments],
        cwd=cwd,
        env={**os.environ, "PIPEPROF_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )


def test_a_scenario_is_run_by_all_ranks_into_one_new_directory(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SCENARIO)
    done = torchrun(tmp_path, "run", "short.yaml", "--set-rank", "1:storage.tier=hdd", "--no-report")
    assert done.returncode == 0, done.stderr
    (job,) = (tmp_path / "runs").iterdir()
    assert list(directories.parts(job)) == [0, 1]
    assert "for rank 1" in " ".join(done.stdout.split())


@pytest.mark.parametrize("script", [("under_ddp.py",), ("under_fsdp.py", "2")])
def test_a_script_is_traced_and_its_late_rank_named(script: tuple[str, ...], tmp_path: Path) -> None:
    name, *arguments = script
    done = torchrun(tmp_path, "trace", "--out", "job", str(SCRIPTS / name), *arguments)
    assert done.returncode == 0, done.stderr
    assert "pipeprof report job" in done.stderr
    found = merge([tmp_path / "job"])
    assert (found.verdict.rank, found.verdict.cause) == (1, "blocked")
    assert [row.status for row in found.ranks] == ["complete", "complete"]
    for row in found.ranks:
        assert sum(row.ledger_ns.values()) == row.wall_ns
