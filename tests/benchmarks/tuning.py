"""Does `tune` find the best cell of an exhaustive matrix, and in how much of its time?

Run by hand on a quiet machine: `python tests/benchmarks/tuning.py [--seconds 10] [--only decode]`. For each
of five scenarios with other bottlenecks every cell of workers x prefetch is measured for `--seconds`, then
`tune` gets a tenth of that time. A row says how far the tuned setting's own cell is below the best one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeprof import trace
from pipeprof.measure.run import run
from pipeprof.pipeline import measured_window, read_timeline
from pipeprof.scenario import Scenario, with_values
from pipeprof.simulate.tune import Setting, line, tune_scenario

BOUND, SHARE = 0.02, 0.1
WORKERS, PREFETCH = (0, 1, 2, 4, 8), (1, 2, 4)
SCENARIOS: dict[str, dict[str, Any]] = {
    "storage": {"storage": {"tier": "hdd"}, "accelerator": {"kind": "emulated", "step_ms": 40}},
    "network": {"storage": {"tier": "network"}, "accelerator": {"kind": "emulated", "step_ms": 60}},
    "decode": {"storage": {"tier": "ram"}, "accelerator": {"kind": "emulated", "step_ms": 5}},
    "accelerator": {"storage": {"tier": "ssd"}, "accelerator": {"kind": "emulated", "step_ms": 300}},
    "hand-over": {
        "storage": {"tier": "ram"},
        "data": {"format": "tensor_files", "samples": 2048},
        "accelerator": {"kind": "emulated", "step_ms": 2},
    },
}


def scenario(name: str, seconds: float) -> Scenario:
    data = {"data": {"format": "jpeg_folder", "samples": 2048}}
    rest = {"loader": {"batch_size": 16, "workers": 2}, "run": {"seconds": seconds}}
    return Scenario.model_validate({"name": name, **data, **rest, **SCENARIOS[name]})


def measured(one: Scenario, setting: Setting, out: Path) -> float:
    timeline = read_timeline(trace.load(run(with_values(one, setting.scenario_values()), out)))
    window = measured_window(timeline)
    assert window is not None
    return float(timeline.samples[~timeline.warmup].sum()) * 1e9 / window.wall_ns


def compare(name: str, seconds: float, room: Path) -> bool:
    """One row; True where it keeps the bound."""
    one = scenario(name, seconds)
    settings = [Setting(w, p) for w, p in itertools.product(WORKERS, PREFETCH) if w or p == 2]
    began = time.monotonic()
    cells = {each: measured(one, each, room / f"{each.workers}-{each.prefetch}") for each in settings}
    spent = time.monotonic() - began
    best = max(cells, key=cells.__getitem__)
    tuned, _ = tune_scenario(one, spent * SHARE, room / "tune", told=lambda trial: print("  ", line(trial)))
    own = cells.get(tuned.best) or measured(one, tuned.best, room / "tuned")
    behind = 1 - own / cells[best]
    print(
        f"{name:12} best {best.workers} x {best.prefetch}: {cells[best]:7.1f}, tuned {tuned.best.workers} x "
        f"{tuned.best.prefetch}: {own:7.1f} samples/s, {behind:+.1%} behind, in {tuned.seconds / spent:.0%} "
        f"of {spent:.0f} s",
        flush=True,
    )
    return behind <= BOUND and tuned.seconds <= spent * SHARE * 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell of the matrix")
    parser.add_argument("--only", choices=list(SCENARIOS), help="one of the scenarios")
    arguments = parser.parse_args()
    good = True
    for name in [arguments.only] if arguments.only else SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="pipeprof-tuning-") as room:
            good &= compare(name, arguments.seconds, Path(room))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
