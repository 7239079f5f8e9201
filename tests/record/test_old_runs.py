"""Runs of earlier versions: each loads, is analysed and reported, and what it lacks is not observed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pipeprof
from pipeprof.analyse.job.merge import merge
from pipeprof.record import directories
from pipeprof.report import jobs
from pipeprof.report.page import html
from pipeprof.simulate.forecast import Forecast

OLD_RUNS = Path(__file__).parent / "old_runs"
"""A run of the bench on an emulated disk; a script that trains and validates twice, with two loaders without
workers; two ranks under torchrun."""


def copied(name: str, tmp_path: Path) -> Path:
    """A copy: reporting writes into a run's directory."""
    return Path(shutil.copytree(OLD_RUNS / name, tmp_path / name))


def test_a_run_of_the_bench(tmp_path: Path) -> None:
    analysis = pipeprof.load(copied("bench", tmp_path))
    meta = analysis.run.meta
    assert (meta.status, meta.loaders[0].workers, meta.accelerator.queue_depth) == ("complete", 4, 2)
    assert meta.storage.model is not None
    assert meta.storage.model.kind == "disk"
    assert meta.settings.loader.batch_size == 32
    assert meta.world_size is None
    assert not meta.job.known
    assert (analysis.verdict.cause, analysis.verdict.band) == ("storage-latency", "highly")
    said = json.loads(json.dumps(analysis.verdict.as_dict()))
    assert sum(said["ledger_ns"].values()) == said["wall_ns"]
    assert "hdd-5400" in html.write(Forecast(analysis), tmp_path / "report.html").read_text()


def test_a_traced_script_without_workers(tmp_path: Path) -> None:
    analysis = pipeprof.load(copied("trace_without_workers", tmp_path))
    meta = analysis.run.meta
    assert [loader.workers for loader in meta.loaders] == [0, 0]
    assert meta.accelerator.kind == "none"
    assert not meta.storage.known
    assert not meta.scenario.known
    said = analysis.verdict.as_dict()
    assert (said["steps"], said["utilization_kind"]) == (72, "loop-body")
    assert sum(said["ledger_ns"].values()) == said["wall_ns"]
    assert "2 loaders" in html.write(Forecast(analysis), tmp_path / "report.html").read_text()


def test_a_job_of_two_ranks(tmp_path: Path) -> None:
    job = copied("job_of_two_ranks", tmp_path)
    ranks = [pipeprof.load(part) for part in directories.parts(job).values()]
    metas = [rank.run.meta for rank in ranks]
    assert [(meta.rank, meta.world_size, meta.node) for meta in metas] == [(0, 2, 0), (1, 2, 0)]
    assert metas[0].job == metas[1].job
    assert metas[0].job.known
    assert all(rank.verdict.as_dict()["wall_ns"] > 0 for rank in ranks)
    merged = merge([job])
    assert [row.steps for row in merged.ranks] == [40, 40]
    assert jobs.write(merged, tmp_path / "report.html").exists()
