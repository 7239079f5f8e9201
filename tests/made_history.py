"""Directories of many runs as they lie there after months: `run.json` and what each came to, no tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from pipeprof.record.choice import RecordedChoice, write_choice
from pipeprof.record.meta import AcceleratorMeta, LoaderMeta, MachineMeta, RunMeta
from pipeprof.record.schema import RUN_JSON

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class Series:
    """The runs of one script on one host, in order of time."""

    script: str = "train.py"
    host: str = "gpu-1"
    runs: int = 60
    rate: float = 1000.0
    noise: float = 0.02
    """Standard deviation of the rate from one run to the next, as a share of it."""
    drop_at: int | None = None
    """Number of the first run with another rate."""
    drop: float = 0.08
    waiting: tuple[float, float] = (0.12, 0.19)
    """Before and since."""
    workers: tuple[int, int] = (8, 8)
    cause: tuple[str, str] = ("decode", "decode")
    outliers: Sequence[int] = field(default_factory=tuple)
    """Runs that were three times as slow for no lasting reason."""
    seed: int = 0


def make(root: Path, *series: Series) -> Path:
    """Write the runs of all series, an hour apart; their directories are `<script>-<host>-<number>`."""
    for one in series:
        rng = np.random.default_rng(one.seed)
        rates = one.rate * np.exp(rng.normal(0, one.noise, one.runs))
        for number in range(one.runs):
            late = int(one.drop_at is not None and number >= one.drop_at)
            rate = rates[number] * (1 - one.drop if late else 1) / (3 if number in one.outliers else 1)
            _write(root / f"{one.script}-{one.host}-{number:04}", one, number, late, float(rate))
    return root


def _write(directory: Path, series: Series, number: int, late: int, rate: float) -> None:
    made = BEGAN + timedelta(hours=number)
    meta = replace(
        RunMeta(),
        status="complete",
        kind="trace",
        name=f"/home/somebody/{series.script}",
        created_at=made.isoformat(timespec="seconds"),
        command=("pipeprof", "trace", series.script),
        loaders=(LoaderMeta(0, "loader", batch_size=64, workers=series.workers[late], prefetch=2),),
        accelerator=AcceleratorMeta(kind="cuda", name="GPU"),
        machine=MachineMeta(cpu_count=64, usable_cores=64.0, gpu_names=("GPU",) * 8, kernel="6.18"),
        packages={"torch": "2.15.0", **{f"package{n}": "1.0" for n in range(40)}},
        host=series.host,
    )
    directory.mkdir(parents=True)
    (directory / RUN_JSON).write_text(meta.as_text())
    choice = RecordedChoice(
        series.cause[late], None, "more-workers", series.waiting[late], rate, "gil", HOUR_NS
    )
    write_choice(directory, choice)
