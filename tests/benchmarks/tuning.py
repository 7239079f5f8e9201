"""Does `tune` find the best cell of an exhaustive matrix, and in how much of its time?

Run by hand on a quiet machine: `python tests/benchmarks/tuning.py [--seconds 10] [--only decode]`. For each
of five scenarios with other bottlenecks every cell of workers x prefetch is measured for about `--seconds`
after what the workers made ahead at the start, then `tune` gets a tenth of that time. The best of many noisy
cells was lucky too, so it and the tuned one are measured again, in turns: a row says how far the tuned one is
behind in those.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from pipeprof.measure.bench.run import run
from pipeprof.record import reader
from pipeprof.scenario import Scenario, with_values
from pipeprof.simulate.tuning.trials import Setting, line
from pipeprof.simulate.tuning.tune import tune_scenario
from pipeprof.timeline import measured_window, read_timeline

BOUND, SHARE = 0.02, 0.1
TURNS = 3
FEWEST_STEPS = 20
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


def measured(one: Scenario, setting: Setting, out: Path, steps: int) -> float:
    """Samples a second over so many steps, once what was made ahead at the start is used up."""
    warmup = 8 + setting.workers * setting.prefetch
    run_part = {"run.seconds": None, "run.steps": warmup + steps, "run.warmup_steps": warmup}
    timeline = read_timeline(
        reader.load(run(with_values(one, {**setting.scenario_values(), **run_part}), out))
    )
    window = measured_window(timeline)
    assert window is not None
    return float(timeline.samples[~timeline.warmup].sum()) * 1e9 / window.wall_ns


def compare(name: str, seconds: float, room: Path) -> bool:
    """One row; True where it keeps the bound."""
    one = scenario(name, seconds)
    began = time.monotonic()
    pace = measured(one, Setting(2), room / "pace", FEWEST_STEPS) / one.loader.batch_size
    steps = max(FEWEST_STEPS, round(pace * seconds))
    settings = [Setting(w, p) for w, p in itertools.product(WORKERS, PREFETCH) if w or p == 2]
    cells = {each: measured(one, each, room / f"{each.workers}-{each.prefetch}", steps) for each in settings}
    spent = time.monotonic() - began
    best = max(cells, key=cells.__getitem__)
    tuned, _ = tune_scenario(
        one, spent * SHARE, room / "tune", on_trial=lambda trial: print("  ", line(trial))
    )
    rates: dict[Setting, list[float]] = {best: [], tuned.best: []}
    for turn, each in itertools.product(range(TURNS), rates):
        rates[each].append(measured(one, each, room / f"{turn}-{each.workers}-{each.prefetch}", steps))
    behind = 1 - mean(rates[tuned.best]) / mean(rates[best])
    print(
        f"{name:12} best {best.workers} x {best.prefetch}: {mean(rates[best]):7.1f} (in the matrix "
        f"{cells[best]:.1f}), tuned {tuned.best.workers} x {tuned.best.prefetch}: "
        f"{mean(rates[tuned.best]):7.1f} samples/s, {behind:+.1%} behind, in {tuned.seconds / spent:.0%} "
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
