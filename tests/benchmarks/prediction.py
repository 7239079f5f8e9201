"""Is what `pipeprof predict` says true? From a run per tier and format a matrix is predicted, then measured.

Run by hand on a quiet machine: `python tests/benchmarks/prediction.py [--quick] [--only ssd/jpeg]`. It goes
on where it was stopped: a cell whose run is complete in `--out` is not measured again. At the end it writes
`prediction.md` (the table, the machine) and `prediction.png` (predicted against measured) into `--results`.
A shared machine's cores are not equally fast from second to second, and no prediction can know how fast they
will be. So each prediction is made twice: as a user gets it, and with the CPU time of its base run scaled by
what decoding and transforming a sample took in its cell over what it took in the base run. The first is what
to expect of such a machine; the second judges the model. On a steady machine they are the same.

Three questions are answered, the first two both ways:

- the matrix: from the base run of a tier and format, how far off is each cell, and does its interval hold it?
- the tier alone: from the HDD base run, how far off are the base runs of the other tiers?
- replay: how far off is each run, replayed with its own demands?
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from pipeprof.measure.bench.run import run
from pipeprof.record.reader import load
from pipeprof.scenario import Scenario
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.predict import Prediction, predict, replay
from pipeprof.simulate.sampling import scalable
from pipeprof.timeline import measured_window, read_timeline
from pipeprof.vocabulary.owners import merged

WORKERS, PREFETCH, STEP_MS = (0, 1, 2, 4, 8), (1, 2, 4), (2, 10, 40)
TIERS, FORMATS = ("hdd", "ssd", "ram"), {"jpeg": "jpeg_folder", "tensor": "tensor_files"}
BATCH_SIZE, SAMPLES = 16, 4096
CHANGED = ("storage", "collate")
"""Work that depends on the tier, and on whether batches cross between processes."""
STEPS = {"hdd": 48, "ssd": 96, "ram": 96}
"""Steps after warm-up; a HDD gives some 5 batches of 16 a second."""
QUESTIONS = ("matrix", "matrix, speed known", "tier", "tier, speed known", "replay")
JUDGED = (
    ("matrix", "median", 0.03),
    ("matrix", "p95", 0.10),
    ("matrix", "coverage", 0.90),
    ("tier", "max", 0.05),
    ("replay", "median", 0.01),
)


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    format: str
    tier: str
    workers: int
    prefetch: int
    step_ms: float

    @property
    def name(self) -> str:
        return f"{self.tier}-{self.format}-w{self.workers}-p{self.prefetch}-{self.step_ms:g}ms"

    @property
    def warmup(self) -> int:
        return 8 + self.workers * self.prefetch

    @property
    def steps(self) -> int:
        return self.warmup + STEPS[self.tier]

    def scenario(self) -> Scenario:
        loader: dict[str, Any] = {"batch_size": BATCH_SIZE, "workers": self.workers}
        if self.workers:
            loader["prefetch"] = self.prefetch
        return Scenario.model_validate(
            {
                "name": self.name,
                "data": {"format": FORMATS[self.format], "samples": SAMPLES},
                "storage": {"tier": self.tier},
                "loader": loader,
                "accelerator": {"kind": "emulated", "step_ms": self.step_ms},
                "run": {"steps": self.steps, "warmup_steps": self.warmup},
            }
        )

    def knobs(self, base: Knobs, base_step_ns: float) -> Knobs:
        speed = base_step_ns / (self.step_ms * 1e6)
        return replace(base, workers=self.workers, prefetch=self.prefetch, accelerator_speed=speed)


def base_cell(tier: str, format_: str) -> Cell:
    return Cell(format_, tier, workers=2, prefetch=2, step_ms=10)


def matrix(quick: bool) -> Iterator[Cell]:
    workers, prefetch, steps = ((0, 2, 4), (2,), (2, 40)) if quick else (WORKERS, PREFETCH, STEP_MS)
    for format_, tier in itertools.product(FORMATS, TIERS):
        for w, p, step in itertools.product(workers, prefetch, steps):
            if w or p == prefetch[0]:
                yield Cell(format_, tier, w, p, step)


def measure(cell: Cell, directory: Path) -> Path:
    """The run of a cell, measured unless it is there."""
    target = directory / cell.name
    if not (target / "run.json").exists() or load(target).status != "complete":
        shutil.rmtree(target, ignore_errors=True)
        run(cell.scenario(), target)
    return target


def slowness(own: Demands, base: Demands) -> float:
    """CPU time of making a sample in one run over that in another, but for what the knobs change."""
    one, other = (
        sum(
            ns[each.measured_rows].mean()
            for owner, ns in each.batches.cpu.items()
            if merged(owner) not in CHANGED
        )
        / each.measured.batch_size
        for each in (own, base)
    )
    return float(one / other)


def slowed(knobs: Knobs, demands: Demands, factor: float) -> Knobs:
    """All CPU time of the base run, times `factor`."""
    work = scalable(demands) & {*map(merged, demands.batches.cpu), "transfer", "main"}
    return knobs.scaled(**dict.fromkeys(sorted(work), factor))


def throughput(directory: Path) -> float:
    timeline = read_timeline(load(directory))
    window = measured_window(timeline)
    assert window is not None
    return float(timeline.samples[~timeline.warmup].sum()) * 1e9 / window.wall_ns


def contention(directory: Path) -> float:
    """Share of making batches that was spent waiting for a core: what neighbours took shows here."""
    batches = load(directory).table("batches").to_pydict()
    rows = [
        (r, f - s)
        for r, s, f in zip(batches["runq_ns"], batches["start_ns"], batches["finish_ns"], strict=True)
        if None not in (r, s, f)
    ]
    return sum(r for r, _ in rows) / max(1, sum(w for _, w in rows))


def row(cell: Cell, question: str, prediction: Prediction, directory: Path) -> dict[str, Any]:
    measured = throughput(directory)
    found = prediction.throughput
    return {
        **asdict(cell),
        "question": question,
        "predicted": found.value,
        "low": found.low,
        "high": found.high,
        "measured": measured,
        "error": found.value / measured - 1,
        "covered": bool(found.low <= measured <= found.high),
        "waited_for_a_core": contention(directory),
        "limit": prediction.limit,
    }


def rows_of(cell: Cell, directory: Path) -> list[dict[str, Any]]:
    """Measure one cell and say what was predicted of it."""
    base = base_cell(cell.tier, cell.format)
    demands = open_run(load(measure(base, directory)))
    target = measure(cell, directory)
    own = open_run(load(target))
    asked = cell.knobs(demands.measured, demands.step_ns)
    rows = both(cell, "matrix", demands, asked, slowness(own, demands), target)
    rows.append(row(cell, "replay", replay(own), target))
    if cell == base and cell.tier != "hdd":
        hdd = open_run(load(measure(base_cell("hdd", cell.format), directory)))
        moved = replace(hdd.measured, storage=demands.measured.storage)
        rows += both(cell, "tier", hdd, moved, slowness(own, hdd), target)
    return rows


def both(
    cell: Cell, question: str, demands: Demands, knobs: Knobs, factor: float, target: Path
) -> list[dict[str, Any]]:
    """The question as a user asks it, and told how fast the cores were."""
    told = slowed(knobs, demands, factor)
    asked = {question: knobs, f"{question}, speed known": told}
    return [
        row(cell, name, predict(demands, each, cell.steps, cell.warmup), target)
        for name, each in asked.items()
    ]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found = {}
    for question in QUESTIONS:
        mine = [row for row in rows if row["question"] == question]
        if mine:
            errors = np.abs([row["error"] for row in mine])
            found[question] = {
                "cells": len(mine),
                "median": float(np.median(errors)),
                "p95": float(np.percentile(errors, 95)),
                "max": float(errors.max()),
                "coverage": float(np.mean([row["covered"] for row in mine])),
            }
    return found


def machine() -> str:
    """The machine in a line, without its name."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    return f"{cores} cores ({cpu}), {platform.system()} {platform.release()}, Python {python}"


SUMMARY_HEAD = "question | cells | median | p95 | largest | in its interval"
ROW_HEAD = "question | tier | format | workers | prefetch | step ms | predicted | measured | error | no core"


def head(names: str) -> list[str]:
    return [f"| {names} |", "|" + "---|" * (names.count("|") + 1)]


def write(rows: list[dict[str, Any]], results: Path, remark: str) -> None:
    """The tables and the picture."""
    day = time.strftime("%Y-%m-%d")
    lines = ["# Predicted against measured", "", f"{day}, {machine()}. {remark}".strip(), ""]
    lines += ["Storage and accelerator are emulated. Errors are of throughput, predicted / measured − 1;", ""]
    lines += ["“no core” is the share of making batches that was spent waiting for a core.", ""]
    lines += head(SUMMARY_HEAD)
    for question, found in summary(rows).items():
        shares = " | ".join(f"{found[key]:.1%}" for key in ("median", "p95", "max", "coverage"))
        lines.append(f"| {question} | {found['cells']} | {shares} |")
    lines += ["", *head(ROW_HEAD)]
    lines += [table_row(one) for one in rows if one["question"] != "replay"]
    results.mkdir(parents=True, exist_ok=True)
    (results / "prediction.md").write_text("\n".join(lines) + "\n")
    points = [one for one in rows if one["question"] == "matrix"]
    (results / "prediction.png").write_bytes(picture(points))


def table_row(one: dict[str, Any]) -> str:
    cells = [str(one[key]) for key in ("question", "tier", "format", "workers", "prefetch")]
    cells += [f"{one['step_ms']:g}", f"{one['predicted']:.1f} ({one['low']:.1f}–{one['high']:.1f})"]
    cells += [f"{one['measured']:.1f}", f"{one['error']:+.1%}", f"{one['waited_for_a_core']:.0%}"]
    return f"| {' | '.join(cells)} |"


def picture(points: list[dict[str, Any]]) -> bytes:
    """A scatter of predicted over measured with the line of equality, as PNG."""
    both = [one[key] for one in points for key in ("measured", "predicted")]
    scale = alt.Scale(type="log", domain=[min(both) * 0.9, max(both) * 1.1])
    equal = [{"measured": value, "predicted": value} for value in (min(both), max(both))]
    x = alt.X("measured:Q", scale=scale, title="measured samples/s")
    y = alt.Y("predicted:Q", scale=scale, title="predicted samples/s")
    line = alt.Chart(alt.Data(values=equal)).mark_line(color="grey").encode(x=x, y=y)
    dots = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=40, opacity=0.7)
    drawn = line + dots.encode(x=x, y=y, color="tier:N", shape="format:N")
    return vl_convert.vegalite_to_png(drawn.properties(width=420, height=420).to_json(), scale=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few cells of each tier and format")
    parser.add_argument("--only", help="tier/format, such as ssd/jpeg; or one of the two")
    parser.add_argument("--out", type=Path, default=Path("runs/prediction"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--remark", default="", help="what the reader must know about the machine at that time"
    )
    arguments = parser.parse_args()
    cells = [base_cell(tier, format_) for format_, tier in itertools.product(FORMATS, TIERS)]
    cells += [cell for cell in matrix(arguments.quick) if cell not in cells]
    if arguments.only:
        wanted = set(arguments.only.split("/"))
        cells = [cell for cell in cells if wanted <= {cell.tier, cell.format}]
    rows: list[dict[str, Any]] = []
    for number, cell in enumerate(cells, 1):
        for one in rows_of(cell, arguments.out):
            rows.append(one)
            print(
                f"{number}/{len(cells)} {cell.name:28} {one['question']:19} "
                f"predicted {one['predicted']:8.1f} measured {one['measured']:8.1f} {one['error']:+7.1%} "
                f"no core {one['waited_for_a_core']:.0%}{'' if one['covered'] else ' outside its interval'}",
                flush=True,
            )
    write(rows, arguments.results, arguments.remark)
    found = summary(rows)
    print(json.dumps(found, indent=1))
    return 0 if all(list(judged(found))) else 1


def judged(found: dict[str, dict[str, float]]) -> Iterator[bool]:
    """Whether each question was answered within its bounds; prints those that were not."""
    for question, measure, bound in JUDGED:
        value = found[question][measure] if question in found else bound
        fine = value >= bound if measure == "coverage" else value <= bound
        if not fine:
            print(f"{question}: {measure} is {value:.1%}, wanted {bound:.0%}")
        yield fine


if __name__ == "__main__":
    sys.exit(main())
