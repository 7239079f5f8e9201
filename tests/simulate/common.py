"""Runs for the simulator's tests: made by the factory, with storage that says what was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeprof.analyse.ledger.attribution import attribute
from pipeprof.devices import STORAGE, StorageModel
from pipeprof.record.reader import Run, load
from pipeprof.simulate.demands.loader import Demands, read_demands
from pipeprof.timeline import measured_window, read_timeline
from tests.factory import MS, Plan, make_run

CPU_ONLY = {"decode": 40 * MS, "collate": MS}
HDD = STORAGE["hdd-7200"]
READ_NS = HDD.seek_ns + HDD.half_rotation_ns + HDD.transfer_ns(110_000)
"""What one file of the factory takes on an idle HDD."""


def recorded(directory: Path, plan: Plan, model: StorageModel | None = None, **meta: Any) -> Run:
    """The run of `plan`; without a model its data lies in memory."""
    storage = {
        "tier": model.tier if model else "ram",
        "name": model.name if model else "ram",
        "emulated": model is not None,
        "model": model.figures() if model else None,
    }
    return load(make_run(directory, plan, **{"storage": storage, **meta}))


def demands_of(directory: Path, plan: Plan, model: StorageModel | None = None, **meta: Any) -> Demands:
    return demands_from(recorded(directory, plan, model, **meta))


def demands_from(run: Run) -> Demands:
    """The demands of a run, as if nothing had run beside it."""
    found = attribute(run)
    assert found is not None
    return read_demands(run, found)


def throughput(run: Run) -> float:
    """Samples a second of the measured window."""
    timeline = read_timeline(run)
    window = measured_window(timeline)
    assert window is not None
    return float(timeline.samples[~timeline.warmup].sum()) * 1e9 / window.wall_ns


def hdd_plan(**changes: Any) -> Plan:
    """One worker on a HDD: it reads 32 files, then decodes them; the accelerator would be twice as fast."""
    stages = {"read": 32 * READ_NS, "decode": 160 * MS, "transform:Crop": 60 * MS, "collate": 4 * MS}
    return Plan(**{"workers": 1, "tier": "hdd", "stages": stages, "compute": 100 * MS, **changes})
