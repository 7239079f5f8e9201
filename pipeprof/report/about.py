"""About this run: what was measured, how, on what, and at what cost of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pipeprof.report import units
from pipeprof.report.facts import Facts
from pipeprof.report.section import Section


def about(facts: Facts) -> Section:
    """The last section."""
    section = Section(
        "run", "About this run", "What was measured, how, and at what cost of its own.", foldable=False
    )
    meta = facts.meta
    command = " ".join(str(part) for part in meta.get("command") or ())
    section.facts = [
        ("Command", command or units.NOT_OBSERVED),
        ("Started", facts.created),
        ("Status", facts.status),
        (
            "Measured",
            f"{units.plural(facts.steps, 'step')} in {units.duration(facts.wall_ns)}, after warm-up",
        ),
        ("Machine", machine(_part(meta, "machine"))),
        ("Accelerator", accelerator(_part(meta, "accelerator"))),
        ("Storage", storage(_part(meta, "storage"))),
        ("Data", data(_part(meta, "data"))),
        ("Emulated", "; ".join(facts.emulated) or "nothing"),
        ("Not observed", "; ".join(facts.not_observed) or "nothing is missing"),
        ("Cost of its own", overhead(_part(meta, "overhead"), _part(meta, "telemetry"))),
        ("Packages", ", ".join(f"{name} {version}" for name, version in _part(meta, "packages").items())),
        ("Record", facts.directory),
    ]
    if meta.get("error"):
        section.facts.insert(3, ("Error", str(meta["error"])))
    section.facts += [("Warning", text) for text in facts.warnings]
    scenario = _part(meta, "scenario")
    text = scenario.get("text") or json.dumps(scenario.get("resolved") or {}, indent=1)
    if len(text) > 2:
        section.text, section.text_title = str(text), "The scenario"
    return section


def _part(meta: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = meta.get(name)
    return found if isinstance(found, Mapping) else {}


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part) or units.NOT_OBSERVED


def machine(facts: Mapping[str, Any]) -> str:
    """Cores, memory and GPUs in one line."""
    if not facts:
        return units.NOT_OBSERVED
    cores, quota = facts.get("usable_cores"), facts.get("cpu_quota_cores")
    names = facts.get("gpu_names")
    return _joined(
        f"{cores:g} usable CPU cores" if _number(cores) else "",
        f"limited to {quota:g} by the container" if _number(quota) else "",
        str(facts.get("cpu_name") or ""),
        f"{units.size(facts['memory_bytes'])} of memory" if facts.get("memory_bytes") else "",
        f"GPUs {units.NOT_OBSERVED}" if names is None else ", ".join(map(str, names)) or "no GPU",
        f"Linux {facts['kernel']}" if facts.get("kernel") else "",
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def accelerator(facts: Mapping[str, Any]) -> str:
    """Name, kind, step time and the source of the figures."""
    kind = "emulated" if facts.get("emulated") else facts.get("kind")
    name = str(facts.get("name") or "")
    pace = f"{units.duration(facts['step_ns'])} a step" if facts.get("step_ns") else ""
    return _joined(
        name,
        str(kind or ""),
        pace if pace != name else "",
        f"figures: {facts['source']}" if facts.get("source") else "",
    )


def storage(facts: Mapping[str, Any]) -> str:
    """The device, emulated or real, with its figures and their source."""
    model = facts.get("model") if isinstance(facts.get("model"), Mapping) else {}
    assert isinstance(model, Mapping)
    return _joined(
        str(facts.get("name") or facts.get("tier") or ""),
        ("emulated" if facts.get("emulated") else "real") if facts else "",
        str(facts.get("path") or ""),
        units.byte_rate(model["bandwidth_bytes_per_s"]) if model.get("bandwidth_bytes_per_s") else "",
        f"cache {facts['cache']}" if facts.get("cache") else "",
        f"figures: {model['source']}" if model.get("source") else "",
    )


def data(facts: Mapping[str, Any]) -> str:
    """The data set."""
    return _joined(
        str(facts.get("format") or ""),
        f"{units.count(facts['samples'])} samples" if facts.get("samples") else "",
        f"{units.size(facts['mean_bytes'])} each" if facts.get("mean_bytes") else "",
        f"decoded in {units.duration(facts['mean_decode_ns'])} each" if facts.get("mean_decode_ns") else "",
    )


def overhead(facts: Mapping[str, Any], telemetry: Mapping[str, Any]) -> str:
    """What the profiler itself cost: measured at the start of the run, the writing during all of it."""
    if not facts:
        return units.NOT_OBSERVED
    return _joined(
        f"{units.duration(facts.get('span_ns'))} of CPU a span",
        f"{units.duration(facts.get('batch_ns'))} a batch in the process that makes it",
        f"{units.duration(facts['flush_ns'])} a step to write the records" if facts.get("flush_ns") else "",
        f"{units.duration(telemetry['cpu_ns'])} for telemetry" if telemetry.get("cpu_ns") else "",
    )
