"""The lesson's page: each claim with what was measured, the chart, why, and what to change.

Built from what is on disk, so that it can be built again without measuring and without torch.
"""

from __future__ import annotations

from pathlib import Path

from pipeprof.report import document, units
from pipeprof.report.facts import created
from pipeprof.report.lesson_beyond import beyond
from pipeprof.report.lesson_claims import copies, devices, disk, memory, workers
from pipeprof.report.lesson_compute import accelerators, networks, workloads
from pipeprof.report.lesson_course import Course, read
from pipeprof.report.lesson_two_layer import two_layer
from pipeprof.report.lesson_words import texts
from pipeprof.trace import write_atomically

CLAIMS = (disk, devices, memory, workers, copies, accelerators, networks, two_layer, workloads, beyond)


def write(directory: Path, path: Path) -> Path:
    """Write the page of the course in `directory`, whole or not at all. `TraceError` where there is none."""
    write_atomically(path, render(read(directory)))
    return path


def render(course: Course) -> str:
    """The page as one HTML text."""
    claims = [build(course) for build in CLAIMS]
    said = texts()
    view = {
        "title": said["title"],
        "lead": [said["lead"], *([said["quick"]] if course.quick else [])],
        "words": list(said["words"].items()),
        "claims": claims,
        "machine": _machine(course),
        "unexpected": _unexpected(course),
    }
    specs = {chart.name: chart.spec for claim in claims for chart in claim.charts}
    crumbs = ["lesson", created(course.told.get("created_at"))]
    context = {"v": view, "crumbs": crumbs}
    return document.render("lesson.html.j2", "The lesson", context, {"charts": specs}, timeline=False)


def _machine(course: Course) -> list[tuple[str, str]]:
    machine, packages = course.meta.get("machine") or {}, course.meta.get("packages") or {}
    gpus = ", ".join(map(str, machine.get("gpu_names") or []))
    cores = units.count(machine.get("usable_cores"))
    return [
        ("CPU", f"{machine.get('cpu_name') or units.NOT_OBSERVED}; usable cores: {cores}"),
        ("Memory", units.size(machine.get("memory_bytes"))),
        ("GPU", gpus or "none seen: accelerators are emulated, or the CPU"),
        ("PyTorch", str(packages.get("torch") or units.NOT_OBSERVED)),
        ("Threads", "the training loop has one CPU thread where the accelerator is emulated"),
        ("Runs", f"{len(course.runs)} complete, of the {'quick' if course.quick else 'whole'} course"),
    ]


def _unexpected(course: Course) -> list[tuple[str, str]]:
    """Runs that did not come to what their scenario expects, and what failed."""
    missed, errors = course.told.get("missed") or {}, course.told.get("errors") or {}
    found = [(str(name), "; ".join(map(str, texts))) for name, texts in missed.items()]
    return found + [(str(name), " ".join(str(text).split())) for name, text in errors.items()]
