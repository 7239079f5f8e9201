"""Runs that try to break a report: markup in every name, absurd figures, nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeprof.record.schema import Status
from tests.factory import MS, ORIGIN_NS, Plan, _meta, begin, make_run, overwrite

SCRIPT = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
STAGES = {
    "read": 5 * MS,
    f"transform:{SCRIPT}": 10 * MS,
    "stage:\x1b[31mred\x1b[0m {{ 7 * 7 }} ${1}": 3 * MS,
    "stage:" + "long" * 200: MS,
    "collate": MS,
}


def make_hostile(directory: Path, **plan: Any) -> Path:
    """A run whose every text is an attack and whose figures are absurd."""
    return make_run(
        directory,
        Plan(**{"stages": STAGES, "tier": "ssd", **plan}),
        name=SCRIPT,
        command=["python", SCRIPT, "-- -->"],
        warnings=[SCRIPT, "\u2028\u2029"],
        not_observed=[SCRIPT],
        emulated=[SCRIPT],
        error=SCRIPT,
        created_at=SCRIPT,
        machine={
            "usable_cores": float("nan"),
            "memory_bytes": 10**300,
            "cpu_name": SCRIPT,
            "gpu_names": [SCRIPT],
        },
        data={"format": SCRIPT, "samples": 10**6, "mean_bytes": 1e300, "mean_decode_ns": float("inf")},
        overhead={"span_ns": float("nan"), "batch_ns": -1},
        scenario={"path": SCRIPT, "text": SCRIPT, "resolved": {"loader": {"workers": SCRIPT}}},
        packages={SCRIPT: SCRIPT},
    )


def make_bare(directory: Path, status: Status = "complete", **meta: Any) -> Path:
    """A run without a row in any table."""
    begin(directory, {**_meta(Plan()), **meta}).close(status)
    overwrite(directory, meta)
    return directory


def make_torn(directory: Path) -> Path:
    """A run that died: streams instead of Parquet, status still running, a process that is gone."""
    plan = Plan(batches=40, workers=2)
    whole = make_run(directory.with_name("whole"), plan)
    writer = begin(directory, {**_meta(plan), "pid": 2**22 + 1})
    from pipeprof.record.reader import load
    from pipeprof.record.schema import TABLES

    run = load(whole)
    for name in TABLES:
        table = run.table(name)
        if name == "telemetry" or len(table) == 0:
            continue
        writer.append(
            name, {column: table[column].to_pylist()[: len(table) // 2] for column in table.column_names}
        )
    writer.append("telemetry", {"time_ns": [ORIGIN_NS], "sensor": ["gpu0.utilization"], "value": [np.nan]})
    writer.flush()
    return directory
