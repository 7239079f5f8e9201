"""About this run: what was measured, how, on what machine, and the profiler's own cost."""

from __future__ import annotations

import json

from pipeprof import units
from pipeprof.analyse.doubts import error_line
from pipeprof.record.meta import (
    AcceleratorMeta,
    DataMeta,
    MachineMeta,
    OverheadMeta,
    StorageMeta,
    TelemetryMeta,
)
from pipeprof.report.page.section import Section
from pipeprof.report.wording.view import RunView, changed_lines, own_cost_text


def about(facts: RunView) -> Section:
    """Return the last section."""
    section = Section(
        "run", "About this run", "What was measured, how, and at what overhead.", foldable=False
    )
    meta = facts.meta
    section.facts = [
        ("Command", " ".join(meta.command) or units.NOT_OBSERVED),
        ("Started", facts.created),
        ("Status", facts.status),
        (
            "Measured",
            _measured(facts),
        ),
        ("Machine", machine(meta.machine)),
        ("Accelerator", accelerator(meta.accelerator)),
        ("Storage", storage(meta.storage)),
        ("Data", data(meta.data)),
        ("Emulated", "; ".join(facts.emulated) or "nothing"),
        ("Not observed", "; ".join(facts.not_observed) or _nothing_missing(facts)),
        ("Profiling overhead", overhead(meta.overhead, meta.telemetry, facts.step_ns)),
        ("Overhead measured in the run", own_cost_text(facts.own_cost, facts.step_ns)),
        ("Packages", ", ".join(f"{name} {version}" for name, version in meta.packages.items())),
        ("Record", facts.directory),
    ]
    if meta.stopped:
        section.facts.insert(
            3, ("Ended", f"pipeprof ended the script's loops {meta.stopped}, as it was asked to")
        )
    section.facts[1:1] = [("Set from outside", text) for text in (*changed_lines(meta), *meta.tried)]
    section.facts += [("Warning", text) for text in facts.warnings]
    text = meta.scenario.text or json.dumps(meta.scenario.resolved, indent=1)
    if len(text) > 2:
        section.text, section.text_title = text, "The scenario"
    if meta.error:
        line = meta.error if section.text else error_line(meta.error)  # the scenario has the room for texts
        section.facts.insert(3, ("Error", line))
        if line not in (meta.error, meta.error.strip()):
            section.text, section.text_title = meta.error, "The whole error"
    return section


def _measured(facts: RunView) -> str:
    if not facts.steps:
        return "no step"
    after = (
        f", after {units.plural(facts.meta.warmup_steps, 'warm-up step')}" if facts.meta.warmup_steps else ""
    )
    return f"{units.plural(facts.steps, 'step')} in {units.duration(facts.wall_ns)}{after}"


def _nothing_missing(facts: RunView) -> str:
    return "nothing is missing" if facts.steps else "everything that a step would show"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part) or units.NOT_OBSERVED


def machine(facts: MachineMeta) -> str:
    """Return cores, memory and GPUs in one line."""
    if not facts.known:
        return units.NOT_OBSERVED
    cores, quota, names = facts.usable_cores, facts.cpu_quota_cores, facts.gpu_names
    return _joined(
        f"{units.amount(cores)} usable CPU cores" if cores is not None else "",
        f"limited to {units.amount(quota)} by the container" if quota is not None else "",
        facts.cpu_name,
        f"{units.size(facts.memory_bytes)} of memory" if facts.memory_bytes else "",
        f"GPUs {units.NOT_OBSERVED}" if names is None else ", ".join(names) or "no GPU",
        f"Linux {facts.kernel}" if facts.kernel else "",
    )


def accelerator(facts: AcceleratorMeta) -> str:
    """Name, kind, step time and the source of the figures."""
    pace = f"{units.duration(facts.step_ns)} a step" if facts.step_ns else ""
    return _joined(
        facts.name,
        "emulated" if facts.emulated else facts.kind,
        pace if pace != facts.name else "",
        f"figures: {facts.source}" if facts.source else "",
    )


def storage(facts: StorageMeta) -> str:
    """Return the device, emulated or real, with its figures and their source."""
    model = facts.model
    return _joined(
        facts.name or facts.tier,
        ("emulated" if facts.emulated else "real") if facts.known else "",
        facts.path,
        units.byte_rate(model.bandwidth_bytes_per_s) if model and model.bandwidth_bytes_per_s else "",
        f"cache {facts.cache}" if facts.cache else "",
        f"figures: {model.source}" if model and model.source else "",
    )


def data(facts: DataMeta) -> str:
    """Return the data set."""
    return _joined(
        facts.format,
        f"{units.count(facts.samples)} samples" if facts.samples else "",
        f"{units.size(facts.mean_bytes)} each" if facts.mean_bytes else "",
        f"decoded in {units.duration(facts.mean_decode_ns)} each" if facts.mean_decode_ns else "",
    )


def overhead(facts: OverheadMeta, telemetry: TelemetryMeta, step_ns: float | None = None) -> str:
    """Return the profiler's own cost, first as a share of a step of `step_ns`.

    It was measured at the run's start, the writing during all of it.
    """
    if not facts.known:
        return units.NOT_OBSERVED
    own_ns = sum(filter(None, (facts.batch_ns, facts.flush_ns, facts.lines_ns)))
    of_step = f"{units.percent(own_ns / step_ns)} of a step: " if step_ns else ""
    return _joined(
        f"{of_step}{units.duration(own_ns)} of CPU for its records and lines",
        f"besides {units.duration(facts.span_ns)} for each span" if facts.span_ns else "",
        f"{units.duration(telemetry.cpu_ns)} in all for telemetry" if telemetry.cpu_ns else "",
    )
