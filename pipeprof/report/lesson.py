"""The lesson's page: every claim, what was measured, the chart, why, and what to change. Built from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeprof.report import document, units
from pipeprof.report.facts import created
from pipeprof.report.lesson_beyond import beyond
from pipeprof.report.lesson_claims import Claim, copies, devices, disk, memory, workers
from pipeprof.report.lesson_compute import accelerators, networks, two_layer, workloads
from pipeprof.report.lesson_course import Course, read
from pipeprof.trace import write_atomically

CLAIMS = (disk, devices, memory, workers, copies, accelerators, networks, two_layer, workloads, beyond)

WORDS = (
    (
        "step",
        "one round of training: take a batch of samples, compute forward and backward, change the weights",
    ),
    ("accelerator", "what computes the step: a GPU, or here mostly an emulated one"),
    ("waiting", "time in which the accelerator had nothing to do because the next batch was not there"),
    ("worker", "a process beside the training loop that reads and decodes samples ahead of time"),
    (
        "emulated",
        "a stand-in with published figures that takes the time the real part would take; data are really read, "
        "decoded and handed over",
    ),
    ("measured", "seen on this machine's clock while it really happened"),
    ("simulated, predicted", "computed from a measured run; it never happened"),
)


def write(directory: Path, path: Path) -> Path:
    """Write the page of the course in `directory`, whole or not at all. `TraceError` where there is none."""
    write_atomically(path, render(read(directory)))
    return path


def render(course: Course) -> str:
    """The page as one HTML text."""
    claims = [build(course) for build in CLAIMS]
    specs = {chart.name: chart.spec for claim in claims for chart in claim.charts}
    view = {
        "claims": claims,
        "words": WORDS,
        "machine": _machine(course),
        "unexpected": _unexpected(course),
        "lead": _lead(course, claims),
    }
    crumbs = ["lesson", created(course.told.get("created_at"))]
    return document.render(
        "lesson.html.j2", "The lesson", {"v": view, "crumbs": crumbs}, {"charts": specs}, timeline=False
    )


def _lead(course: Course, claims: list[Claim]) -> list[str]:
    first, best = course.get("1_hdd"), course.get("5_ladder_pinned")
    lines = [
        "What CS231n, lecture 8, says about feeding a GPU, claim by claim, run as real training loops on one "
        "machine and measured."
    ]
    if first is not None and best is not None:
        lines.append(
            f"It begins with an accelerator that waits {units.percent(first.stall)} of its time for a hard disk."
        )
    if course.quick:
        lines.append("This is the quick course: few steps, few cells. `pipeprof lesson` runs all of it.")
    return lines


def _machine(course: Course) -> list[tuple[str, str]]:
    machine = course.meta.get("machine") or {}
    packages = course.meta.get("packages") or {}
    gpus = machine.get("gpu_names") or []
    facts = [
        (
            "CPU",
            f"{machine.get('cpu_name') or units.NOT_OBSERVED}, {units.count(machine.get('usable_cores'))} usable cores",
        ),
        ("Memory", units.size(machine.get("memory_bytes"))),
        ("GPU", ", ".join(map(str, gpus)) if gpus else "none: accelerators are emulated, or the CPU"),
        ("PyTorch", str(packages.get("torch") or units.NOT_OBSERVED)),
        (
            "Runs",
            f"{units.count(len(course.runs))} complete runs, {'the quick course' if course.quick else 'the whole course'}",
        ),
    ]
    return [(key, value) for key, value in facts if value]


def _unexpected(course: Course) -> list[Any]:
    """Runs that did not come to what their scenario expects."""
    missed = course.told.get("missed") or {}
    return [(name, "; ".join(map(str, texts))) for name, texts in missed.items()]
