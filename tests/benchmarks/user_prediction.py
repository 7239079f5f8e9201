"""The exam of predictions on people's own jobs: predicted from one traced run, measured without pipeprof.

Run by hand on a quiet machine: `python -m tests.benchmarks.user_prediction [--only KIND]`; 15 to 20 minutes.
Each kind of `user_job.py` is traced with 1 and with 2 workers. From each of the two 0, 1, 2 and 4 workers are
predicted; each is measured by the plain job, twice, with the base setting before and after. Files lie on
a disk that the kernel limits, where root and cgroups allow that, else on an emulated device; they are
predicted without and with a probe of the storage. The drift is what the base itself differed by.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from pipeprof.analyse.analysis import load
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import change
from tests.diagnosis.reports.exam import whole_disk

JOB = Path(__file__).with_name("user_job.py")
WORKERS = (0, 1, 2, 4)
BASES = (1, 2)
GROUP = "pipeprof-prediction"
V1, V2 = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Case:
    """A kind of job, its step, and the limit of its disk."""

    name: str
    kind: str
    step_ms: float
    reads_per_s: int | None = None
    bytes_per_s: int | None = None

    @property
    def limited(self) -> bool:
        return self.reads_per_s is not None or self.bytes_per_s is not None


CASES = (
    Case("jpeg-ram-10", "jpeg-ram", 10),
    Case("jpeg-ram-40", "jpeg-ram", 40),
    Case("text", "text", 10),
    Case("tensors", "tensors", 2),
    Case("jpeg-files", "jpeg-files", 10, reads_per_s=300),
    Case("raw-files", "raw-files", 10, reads_per_s=600),
    Case("mapped", "mapped", 10, bytes_per_s=20 << 20),
    Case("room", "jpeg-files", 10, reads_per_s=3000),
)


@dataclass(frozen=True)
class Cell:
    """One prediction beside what was measured; samples a second."""

    case: str
    how: str
    base: int
    workers: int
    predicted: float
    low: float
    high: float
    measured: float
    drift: float
    state: str

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@contextmanager
def limited(case: Case, data: Path) -> Iterator[list[str]]:
    """Limit the disk of `data`; gives what stands before a command. Raises `OSError` where that cannot be."""
    if not case.limited:
        yield []
        return
    root, disk = (V1 if V1.is_dir() else V2), whole_disk(data)
    group = root / GROUP
    group.mkdir(exist_ok=True)
    try:
        if root is V2:
            reads = f" riops={case.reads_per_s}" if case.reads_per_s else ""
            size = f" rbps={case.bytes_per_s}" if case.bytes_per_s else ""
            (group / "io.max").write_text(f"{disk}{reads}{size}")
        elif case.reads_per_s:
            (group / "blkio.throttle.read_iops_device").write_text(f"{disk} {case.reads_per_s}")
        else:
            (group / "blkio.throttle.read_bps_device").write_text(f"{disk} {case.bytes_per_s}")
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        for _ in range(50):  # its last process may not be quite gone
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def emulated(case: Case, data: Path) -> list[str]:
    """Return the job's arguments for an emulated device, where the disk cannot be limited."""
    try:
        with limited(case, data):
            return []
    except OSError:
        return ["--emulate", "hdd-7200"]


class Exam:
    """Runs of one case."""

    def __init__(self, case: Case, data: Path, runs: Path) -> None:
        self.case, self.data, self.runs = case, data, runs
        self.extra = emulated(case, data)

    def job(self, workers: int) -> list[str]:
        case = self.case
        asked = ["--workers", str(workers), "--step-ms", str(case.step_ms), "--data", str(self.data)]
        return [str(JOB), case.kind, *asked, *self.extra]

    def run(self, command: list[str]) -> str:
        with (
            limited(self.case, self.data)
            if not self.extra
            else limited(Case("", "", 0), self.data) as entering
        ):
            done = subprocess.run(
                [*entering, sys.executable, *command], capture_output=True, text=True, check=True
            )
        return done.stdout

    def measure(self, workers: int) -> float:
        rate: float = json.loads(self.run(self.job(workers)).splitlines()[-1])["samples_per_s"]
        return rate

    def prepare(self) -> None:
        """Make the data."""
        subprocess.run([sys.executable, *self.job(1), "--prepare"], check=True)

    def trace(self, workers: int, probe: bool, out: Path | None = None) -> Path:
        out = out or self.runs / f"{self.case.name}-{workers}{'-probed' if probe else ''}"
        trace = ["-m", "pipeprof", "trace", "--no-report", "-q", "--out", str(out)]
        trace += ["--probe-storage"] if probe else []
        self.run([*trace, *self.job(workers)])
        return out

    def cells(self) -> list[Cell]:
        """Measure each setting twice, trace the bases between, and predict."""
        self.prepare()
        measured: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        order = (1, 0, 1, 2, 1, 4, 1, 2, 0, 2, 4, 2)
        for workers in order:
            measured[workers].append(self.measure(workers))
        probed = self.case.limited and not self.extra
        found = []
        for base in BASES:
            run = self.trace(base, probe=probed)
            probe = run / "storage_probe.json"
            hows = [("probe", probe)] if probe.exists() else []
            for how, kept in [*hows, ("run alone", None)]:
                if kept is None and probe.exists():
                    probe.rename(run / "storage_probe.kept")
                found += self.predicted(run, base, how, measured)
        return found

    def predicted(self, run: Path, base: int, how: str, measured: dict[int, list[float]]) -> list[Cell]:
        analysis = load(run)
        device = analysis.facts.device if analysis.facts is not None else None
        forecast = Forecast(analysis)
        if forecast.unpredicted:
            raise SystemExit(f"{run}: {forecast.unpredicted}")
        cells = []
        for workers in WORKERS:
            knobs = change(forecast.predictor.demands.measured, {"loader.workers": str(workers)})
            rate = forecast.predictor.predict(knobs).throughput
            cells.append(
                Cell(
                    self.case.name,
                    how,
                    base,
                    workers,
                    rate.value,
                    rate.low,
                    rate.high,
                    mean(measured[workers]),
                    max(measured[base]) / min(measured[base]) - 1,
                    "–" if device is None else f"{device.state} ({device.basis or '–'})",
                )
            )
        return cells


def table(cells: list[Cell]) -> str:
    """Return the cells as Markdown, then sums by case."""
    rows = [
        "| case | how | from | workers | predicted | interval | measured | error | inside | drift | device |"
    ]
    rows.append("| --- |" + " --- |" * 10)
    for one in cells:
        rows.append(
            f"| {one.case} | {one.how} | {one.base} | {one.workers} | {one.predicted:.1f} | {one.low:.1f}–"
            f"{one.high:.1f} | {one.measured:.1f} | {one.error:+.1%} | {'yes' if one.inside else 'no'} | "
            f"{one.drift:.1%} | {one.state} |"
        )
    rows += ["", "| case | how | cells | median error | 95th percentile | inside |", "| --- |" + " --- |" * 5]
    groups = {(one.case, one.how) for one in cells}
    for case, how in [*sorted(groups), ("all", "all")]:
        mine = [one for one in cells if case == "all" or (one.case, one.how) == (case, how)]
        errors = sorted(abs(one.error) for one in mine)
        rows.append(
            f"| {case} | {how} | {len(mine)} | {median(errors):.1%} | "
            f"{errors[min(len(errors) - 1, round(0.95 * (len(errors) - 1)))]:.1%} | "
            f"{sum(one.inside for one in mine)} of {len(mine)} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Take the exam and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "pipeprof-user-data")
    parser.add_argument("--results", type=Path, help="Write the table to this file too.")
    asked = parser.parse_args()
    asked.data.mkdir(parents=True, exist_ok=True)
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="pipeprof-user-") as runs:
        for case in CASES:
            if asked.only is None or case.name in asked.only:
                began = time.monotonic()
                cells += Exam(case, asked.data, Path(runs)).cells()
                print(f"{case.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    when = time.strftime("%d %B %Y")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, {when}"
    text = f"{machine}\n\n{table(cells)}\n"
    print(text)
    if asked.results is not None:
        asked.results.write_text(text)


if __name__ == "__main__":
    main()
