"""The exam of predictions on people's own jobs: predicted from one traced run, measured without pipeprof.

Run by hand on a quiet machine: `python -m tests.benchmarks.user_prediction [--only KIND]`; 15 to 20 minutes.
Each kind of `user_job.py` is traced with 1 and with 2 workers. From each of the two 0, 1, 2 and 4 workers are
predicted; each is measured by the plain job, twice, half of it before the traces and half after. Files lie on
a disk that the kernel limits, where root and cgroups allow that, else on an emulated device; they are
predicted without and with a probe of the storage. The drift is what the base itself differed by, and "again"
is by how much the cell's own setting differed from its first measurement to its last: no prediction can be
expected to be nearer than that. Runs and what was measured are kept: `--again` predicts from them once more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

import altair as alt
import vl_convert

from pipeprof.analyse.analysis import load
from pipeprof.record.added.storage_probe import PROBE_JSON
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import change
from tests.benchmarks.user_job import first_counted
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
    seconds: float = 4.0
    """To measure a setting at the most; more where 60 batches take longer."""
    rows: int = 1 << 15
    """Of a mapped file. A fault reads as much ahead as the disk's setting says, which may be 8 MiB: only of a
    large file does a run read little twice."""

    @property
    def limited(self) -> bool:
        return self.reads_per_s is not None or self.bytes_per_s is not None

    @property
    def limits(self) -> str:
        """What sets the pace of most of its cells."""
        if not self.limited:
            return "the CPU"
        return "a device with room" if self.name == "room" else "a full device"


CASES = (
    Case("jpeg-ram-10", "jpeg-ram", 10),
    Case("jpeg-ram-40", "jpeg-ram", 40),
    Case("text", "text", 10),
    Case("tensors", "tensors", 2),
    Case("jpeg-files", "jpeg-files", 10, reads_per_s=300),
    Case("raw-files", "raw-files", 10, reads_per_s=600),
    Case("mapped", "mapped", 10, bytes_per_s=100 << 20, seconds=12, rows=1 << 20),
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
    again: float
    """Difference of the last measurement from the first."""
    state: str
    replayed: float
    """Error of the replay of the traced run itself."""

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@contextmanager
def limited(case: Case, data: Path, name: str = GROUP) -> Iterator[list[str]]:
    """Limit the disk of `data`; gives what stands before a command. Raises `OSError` where that cannot be."""
    if not case.limited:
        yield []
        return
    root, disk = (V1 if V1.is_dir() else V2), whole_disk(data)
    group = root / name
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
    """Runs of one case, kept in `runs` with what was measured."""

    def __init__(self, case: Case, data: Path, runs: Path) -> None:
        self.case, self.data, self.runs = case, data, runs
        self.extra: list[str] = []

    def job(self, workers: int) -> list[str]:
        case = self.case
        asked = ["--workers", str(workers), "--step-ms", str(case.step_ms), "--data", str(self.data)]
        return [
            str(JOB),
            case.kind,
            *asked,
            "--rows",
            str(case.rows),
            "--seconds",
            str(case.seconds),
            *self.extra,
        ]

    def run(self, command: list[str]) -> float:
        """Run a command that ends with the job's own line; return its samples a second."""
        with limited(self.case if not self.extra else Case("", "", 0), self.data) as entering:
            done = subprocess.run(
                [*entering, sys.executable, *command], capture_output=True, text=True, check=True
            )
        rate: float = json.loads(done.stdout.splitlines()[-1])["samples_per_s"]
        return rate

    @property
    def kept(self) -> Path:
        return self.runs / f"{self.case.name}.json"

    def run_of(self, base: int) -> Path:
        return self.runs / f"{self.case.name}-{base}"

    def prepare(self) -> None:
        """Make the data, and see whether its disk can be limited."""
        self.extra = emulated(self.case, self.data)
        subprocess.run([sys.executable, *self.job(1), "--prepare"], check=True)

    def measure(self) -> None:
        """Measure each setting at least twice, and trace the bases in the middle of it."""
        self.prepare()
        probed = self.case.limited and not self.extra
        measured: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        for workers in (1, 0, 1, 2, 1, 4):
            measured[workers].append(self.run(self.job(workers)))
        traced = {base: self.trace(base, self.run_of(base), probed) for base in BASES}
        for workers in (1, 2, 0, 2, 4, 2):
            measured[workers].append(self.run(self.job(workers)))
        kept = {"measured": measured, "traced": traced, "emulated": bool(self.extra)}
        self.kept.write_text(json.dumps(kept))

    def trace(self, workers: int, out: Path, probe: bool = False) -> float:
        """Trace the job anew, without the batches that it does not count either; return its own speed."""
        shutil.rmtree(out, ignore_errors=True)
        trace = ["-m", "pipeprof", "trace", "--no-report", "-q", "--out", str(out)]
        trace += ["--warmup-steps", str(first_counted(workers))]
        return self.run([*trace, *(["--probe-storage"] if probe else []), *self.job(workers)])

    def cells(self) -> list[Cell]:
        """Predict from the runs that are kept."""
        kept = json.loads(self.kept.read_text())
        measured = {int(workers): rates for workers, rates in kept["measured"].items()}
        found = []
        for base in BASES:
            run = self.run_of(base)
            probe, aside = run / PROBE_JSON, run / "storage_probe.aside"
            if aside.exists():
                aside.rename(probe)
            if probe.exists():
                found += self.predicted(run, base, "probe", measured)
                probe.rename(aside)
            found += self.predicted(run, base, "run alone", measured)
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
                    measured[workers][-1] / measured[workers][0] - 1,
                    "–" if device is None else f"{device.state} ({device.basis or '–'})",
                    forecast.replay_error or 0.0,
                )
            )
        return cells


def table(cells: list[Cell]) -> str:
    """Return the cells as Markdown, then sums by case and by what limits."""
    rows = [
        "| case | how | from | workers | predicted | interval | measured | error | inside | drift | again | "
        "device | replay |"
    ]
    rows.append("| --- |" + " --- |" * 12)
    for one in cells:
        rows.append(
            f"| {one.case} | {one.how} | {one.base} | {one.workers} | {one.predicted:.1f} | {one.low:.1f}–"
            f"{one.high:.1f} | {one.measured:.1f} | {one.error:+.1%} | {'yes' if one.inside else 'no'} | "
            f"{one.drift:.1%} | {one.again:+.1%} | {one.state} | {one.replayed:+.1%} |"
        )
    rows += [
        "",
        "| cells | how | number | median | 95th percentile | inside | again, median | again, 95th |",
        "| --- |" + " --- |" * 7,
    ]
    for name, how, mine in groups(cells):
        errors, again = (
            [abs(each) for each in of] for of in zip(*((c.error, c.again) for c in mine), strict=True)
        )
        inside = f"{sum(one.inside for one in mine)} of {len(mine)}"
        rows.append(
            f"| {name} | {how} | {len(mine)} | {median(errors):.1%} | {late(errors):.1%} | {inside} | "
            f"{median(again):.1%} | {late(again):.1%} |"
        )
    return "\n".join(rows)


def late(values: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[round(0.95 * (len(values) - 1))]


def groups(cells: list[Cell]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Yield the cells by case, by what limits them, and all."""
    for case, how in sorted({(one.case, one.how) for one in cells}):
        yield case, how, [one for one in cells if (one.case, one.how) == (case, how)]
    yield from by_limit(cells)
    yield "all", "all", cells


def by_limit(cells: list[Cell]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Yield the cells by what limits them."""
    limits = {case.name: case.limits for case in CASES}
    for limit, how in sorted({(limits[one.case], one.how) for one in cells}):
        yield limit, how, [one for one in cells if (limits[one.case], one.how) == (limit, how)]


def picture(cells: list[Cell]) -> bytes:
    """Return predictions and their intervals over what was measured, with the line of equality, as PNG."""
    points = [{**asdict(one), "limits": limits} for limits, _, mine in by_limit(cells) for one in mine]
    ends = [value for one in cells for value in (one.measured, one.low, one.high)]
    scale = alt.Scale(type="log", domain=[min(ends) * 0.9, max(ends) * 1.1])
    x = alt.X("measured:Q", scale=scale, title="measured samples/s")
    y = alt.Y("predicted:Q", scale=scale, title="predicted samples/s")
    line = [{"measured": value, "predicted": value} for value in (min(ends), max(ends))]
    equal = alt.Chart(alt.Data(values=line)).mark_line(color="grey").encode(x=x, y=y)
    drawn = alt.Chart(alt.Data(values=points)).encode(x=x, color="limits:N")
    bars = drawn.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    dots = drawn.mark_point(filled=True, size=40, opacity=0.8).encode(y=y, shape="how:N")
    both = (equal + bars + dots).properties(width=420, height=420)
    return vl_convert.vegalite_to_png(both.to_json(), scale=2)


def main() -> None:
    """Take the exam and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    room = Path(tempfile.gettempdir())
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--data", type=Path, default=room / "pipeprof-user-data")
    parser.add_argument("--keep", type=Path, default=room / "pipeprof-user-runs", help="Where runs go.")
    parser.add_argument("--again", action="store_true", help="Measure nothing: predict from the runs kept.")
    parser.add_argument("--results", type=Path, help="Write the table here, and a picture beside.")
    asked = parser.parse_args()
    for directory in (asked.data, asked.keep):
        directory.mkdir(parents=True, exist_ok=True)
    cells: list[Cell] = []
    for case in CASES:
        exam = Exam(case, asked.data, asked.keep)
        if (asked.only and case.name not in asked.only) or (asked.again and not exam.kept.exists()):
            continue
        began = time.monotonic()
        if not asked.again:
            exam.measure()
        cells += exam.cells()
        print(f"{case.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    when = time.strftime("%d %B %Y")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, {when}"
    text = f"{machine}\n\n{table(cells)}\n"
    print(text)
    if asked.results is not None:
        asked.results.write_text(text)
        asked.results.with_suffix(".png").write_bytes(picture(cells))


if __name__ == "__main__":
    main()
