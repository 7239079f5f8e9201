"""The lesson's ladder as shipped: does the stall fall from rung to rung? Run by hand; results in README.md.

Each rung is its scenario file, unchanged. Exits with 1 where the order or one of the ends is not as the
lesson says: over 80 % stall on a hard disk without workers, under 5 % from pinned memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pipeprof.analyse.analysis import load as analysis_of
from pipeprof.measure.bench.run import run
from pipeprof.scenario import load

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
RUNGS = ("hdd_0workers", "hdd_4workers", "ssd_4workers", "ram_4workers", "pinned_4workers")


def main() -> int:
    """Print the table; the accelerator's idle time is the stall and the copy to the device."""
    print("| rung | stall | idle | of it h2d | cause |\n| --- | --- | --- | --- | --- |")
    stalls, idles = [], []
    for rung in RUNGS:
        (scenario,) = load(SCENARIOS / f"{rung}.yaml")
        with tempfile.TemporaryDirectory() as place:
            said = analysis_of(run(scenario, Path(place) / "run")).verdict.as_dict()
        stall, idle = said["verdict"]["stall_share"], 1 - said["utilization"]
        copying = said["ledger_ns"].get("h2d", 0) / said["wall_ns"]
        print(
            f"| {rung} | {stall:.1%} | {idle:.1%} | {copying:.1%} | {said['verdict']['cause']} |", flush=True
        )
        stalls.append(stall)
        idles.append(idle)
    falling = stalls == sorted(stalls, reverse=True) and idles == sorted(set(idles), reverse=True)
    return 0 if falling and stalls[0] > 0.8 and stalls[-1] < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
