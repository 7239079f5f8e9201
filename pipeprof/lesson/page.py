"""The lesson's page: each claim with what was measured, the chart, why, and what to change.

It is built from files on disk, so that it can be rebuilt without measuring and without torch.
"""

from __future__ import annotations

from pathlib import Path

from pipeprof import units
from pipeprof.lesson.claims.beyond import beyond
from pipeprof.lesson.claims.claim import texts
from pipeprof.lesson.claims.compute import accelerators, networks, workloads
from pipeprof.lesson.claims.data import copies, devices, disk, memory, workers
from pipeprof.lesson.claims.two_layer import two_layer
from pipeprof.lesson.results import Results, read
from pipeprof.record.files import write_atomically
from pipeprof.report.page import document

CLAIMS = (disk, devices, memory, workers, copies, accelerators, networks, two_layer, workloads, beyond)


def write(directory: Path, path: Path) -> Path:
    """Write the page of the lesson in `directory`. Raises `TraceError` if there is no lesson."""
    write_atomically(path, render(read(directory)))
    return path


def render(results: Results) -> str:
    """Render the page as one HTML text."""
    claims = [build(results) for build in CLAIMS]
    words = texts()
    view = {
        "title": words["title"],
        "lead": [words["lead"], *([words["quick"]] if results.quick else [])],
        "words": list(words["words"].items()),
        "claims": claims,
        "machine": _machine(results),
        "unexpected": _unexpected(results),
    }
    specs = {chart.name: chart.spec for claim in claims for chart in claim.charts}
    crumbs = ["lesson", units.moment(results.lesson.created_at)]
    context = {"v": view, "crumbs": crumbs}
    return document.render(
        "lesson.html.j2", "The lesson", context, {"charts": specs}, timeline=False, package="pipeprof.lesson"
    )


def _machine(results: Results) -> list[tuple[str, str]]:
    machine = results.run_meta.machine
    gpus = ", ".join(machine.gpu_names or ())
    cores = units.count(machine.usable_cores)
    return [
        ("CPU", f"{machine.cpu_name or units.NOT_OBSERVED}; usable cores: {cores}"),
        ("Memory", units.size(machine.memory_bytes)),
        ("GPU", gpus or "none seen: accelerators are emulated, or the CPU"),
        ("PyTorch", results.run_meta.packages.get("torch", units.NOT_OBSERVED)),
        ("Threads", "the training loop has one CPU thread where the accelerator is emulated"),
        ("Runs", f"{len(results.runs)} complete, of the {'quick' if results.quick else 'whole'} course"),
    ]


def _unexpected(results: Results) -> list[tuple[str, str]]:
    """List runs that did not give the result that their scenario expects, and failures."""
    missed = [(name, "; ".join(texts)) for name, texts in results.lesson.missed.items()]
    return missed + [(name, " ".join(text.split())) for name, text in results.lesson.errors.items()]
