"""Claims 6, 7 and 9 of the lecture: accelerators and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED
from pipeprof.report import lesson_draw, units
from pipeprof.report.lesson_claims import stall, unobserved
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.lesson_draw import Bar
from pipeprof.report.lesson_words import Claim, claim
from pipeprof.report.section import Table

ACCELERATORS: Final = (
    ("this CPU (real)", "6_cpu"),
    ("V100", "6_accelerators-preset=v100-resnet50"),
    ("A100", "6_accelerators-preset=a100-resnet50"),
    ("H100", "6_accelerators-preset=h100-resnet50"),
    ("B200, other network", "6_accelerators-preset=b200-retinanet"),
)
NETWORKS: Final = (
    "alexnet", "vgg16", "googlenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "wide_resnet50_2", "resnext50_32x4d", "densenet121",
)  # fmt: skip
_PRETTY: Final = {
    "vgg": "VGG-",
    "resnet": "ResNet-",
    "alexnet": "AlexNet",
    "googlenet": "GoogLeNet",
    "densenet": "DenseNet-",
    "wide_resnet50_2": "Wide ResNet-50",
    "resnext50_32x4d": "ResNeXt-50",
}


def step_ns(rung: Rung | None) -> float | None:
    """Median time that the accelerator computed in a measured step, in ns; None where not observed."""
    if rung is None:
        return None
    t = rung.answer.timeline
    seen = ~t.warmup & (t.compute_end_ns != NOT_OBSERVED) & (t.compute_start_ns != NOT_OBSERVED)
    return float(np.median((t.compute_end_ns - t.compute_start_ns)[seen])) if seen.any() else None


def accelerators(course: Course) -> Claim:
    """Claim 6: one loader before ever faster steps; compiled against eager."""
    told = claim(6, course.directory)
    runs = []
    for label, name in ACCELERATORS:
        rung = course.get(name)
        if rung is None:
            told.missing.append(f"{label}: not observed ({course.why_missing(name)}).")
        else:
            runs.append((label, rung))
    if runs:
        each = ", ".join(f"{label} {stall(rung)}" for label, rung in runs)
        told.answer = (
            f"Fed by one and the same loader (measured), the accelerator waited: {each} of the time."
        )
        told.short = f"{runs[0][0]} {stall(runs[0][1])}, {runs[-1][0]} {stall(runs[-1][1])}"
        how = "All but the CPU are emulated; the loader is the same."
        told.charts = [
            lesson_draw.days("claim6_days", runs, "The same loader, ever faster accelerators", how)
        ]
        told.legend = lesson_draw.legend([rung for _, rung in runs])
        told.tables = [_needs(runs)]
    _compiled(course, told)
    if not told.answer and told.more:
        told.answer = told.more.pop()
    return told if told.answer else unobserved(told, course, "6_accelerators")


def full_rate(rung: Rung) -> float | None:
    """Samples a second at full speed: by the model of an emulated accelerator, else as it computed."""
    said = rung.said.meta.get("accelerator") or {}
    batch, step = said.get("step_batch_size"), said.get("step_ns")
    return batch * 1e9 / step if batch and step else rung.full_rate


def _needed(rung: Rung) -> float | None:
    full, size = full_rate(rung), rung.bytes_per_sample
    return None if full is None or size is None else full * size


def _needs(runs: Sequence[tuple[str, Rung]]) -> Table:
    rows = [
        [
            label,
            units.sample_rate(full_rate(rung)),
            units.size(rung.bytes_per_sample),
            units.byte_rate(_needed(rung)),
            units.sample_rate(rung.rate),
            stall(rung),
            "emulated" if (rung.said.meta.get("accelerator") or {}).get("emulated") else "measured",
        ]
        for label, rung in runs
    ]
    heads = ["accelerator", "could take", "an image has", "needs of storage", "got", "waited", "its speed is"]
    return lesson_draw.table("What each needs of its storage to stay busy", heads, rows)


def _compiled(course: Course, told: Claim) -> None:
    eager, compiled = (course.get(f"6_compile-compile={word}") for word in ("false", "true"))
    times = [("eager", step_ns(eager)), ("compiled", step_ns(compiled))]
    shown = [Bar(label, ns / 1e6, units.duration(ns), "accelerator") for label, ns in times if ns is not None]
    if eager is None or len(shown) < 2:
        name = "6_compile-compile=false" if eager is None else "6_compile-compile=true"
        told.missing.append(f"torch.compile: not observed ({course.why_missing(name)}).")
        return
    network = str((eager.said.meta.get("model") or {}).get("name") or "the network")
    told.more.append(
        f"On this CPU torch.compile took the step of {network} from {shown[0].text} to {shown[1].text} "
        f"(measured){_direction(shown[0].value, shown[1].value)}."
    )
    title = f"A step of {network} on this CPU, eager and compiled (measured)"
    told.charts.append(lesson_draw.bars("claim6_compile", shown, "time of a step, ms", title))


def _direction(eager: float, compiled: float) -> str:
    if compiled < eager:
        return ": the same network, a faster step"
    return ": no gain for a small batch on a CPU; what it saves is many small kernels of a GPU"


def networks(course: Course) -> Claim:
    """Claim 7: CPU against GPU, cuDNN on and off."""
    told, held = claim(7, course.directory), course.networks
    times = {
        (row["network"], row["device"], row["cudnn"]): row.get("step_ns") for row in held.get("times") or []
    }
    names = list(dict.fromkeys(network for network, _, _ in times))
    shown = [
        Bar(pretty(name), ns / 1e9, units.duration(ns), "accelerator")
        for name in names
        if (ns := times.get((name, "cpu", None)))
    ]
    if not shown:
        return unobserved(told, course, "7_networks")
    each = ", ".join(f"{bar.label} {bar.text}" for bar in shown)
    threads = units.plural(int(held.get("threads") or 1), "thread")
    batch = f"a batch of {held.get('batch')} images"
    told.answer = f"Forward and backward of {batch} on this CPU ({threads}, measured): {each}."
    told.more = [_against(held, times, names)]
    told.short = "the CPU's side" if not held.get("cuda") else "both sides"
    title = f"On the CPU, batches of {held.get('batch')} images (measured)"
    told.charts = [lesson_draw.bars("claim7", shown, "forward and backward of one batch, s", title)]
    heads = [
        "network",
        "CPU",
        "GPU with cuDNN",
        "GPU without",
        "GPU over CPU (lecture: 60–70)",
        "cuDNN (lecture: about 3)",
    ]
    rows = [_network_row(name, times) for name in names]
    told.tables = [lesson_draw.table("Forward and backward of one batch", heads, rows)]
    return told


Times = Mapping[tuple[str, str, bool | None], float | None]


def _against(held: Mapping[str, Any], times: Times, names: Sequence[str]) -> str:
    ratios = [
        cpu / gpu
        for name in names
        if (cpu := times.get((name, "cpu", None))) and (gpu := times.get((name, "cuda", True)))
    ]
    if not ratios:
        return "The GPU's side was not observed: there is no GPU here."
    return (
        f"On the GPU ({held.get('cuda')}) it is {units.digits(min(ratios))} to {units.digits(max(ratios))} "
        "times as fast (measured)."
    )


def _network_row(name: str, times: Times) -> list[str]:
    cpu, gpu, plain = (
        times.get((name, *place)) for place in (("cpu", None), ("cuda", True), ("cuda", False))
    )
    return [
        pretty(name),
        *(units.duration(value) for value in (cpu, gpu, plain)),
        f"{units.digits(cpu / gpu)} times" if cpu and gpu else units.NOT_OBSERVED,
        f"{units.digits(plain / gpu)} times" if plain and gpu else units.NOT_OBSERVED,
    ]


def pretty(name: str) -> str:
    """A network as the lecture writes it."""
    if name in _PRETTY:
        return _PRETTY[name]
    head = name.rstrip("0123456789")
    return _PRETTY.get(head, head) + name[len(head) :]


def workloads(course: Course) -> Claim:
    """Claim 9: the networks of the notes as workloads."""
    told = claim(9, course.directory)
    times = {name: step_ns(course.get(f"9_networks-name={name}")) for name in NETWORKS}
    shown = [
        Bar(pretty(name), ns / 1e9, units.duration(ns), "accelerator") for name, ns in times.items() if ns
    ]
    if not shown:
        return unobserved(told, course, "9_networks")
    each = ", ".join(f"{bar.label} {bar.text}" for bar in shown)
    told.answer = f"A training step of 2 images on this CPU (measured): {each}."
    told.short = f"{len(shown)} of {len(NETWORKS)} trained here"
    title = "A training step of each network on this CPU, batches of 2 images (measured)"
    told.charts = [lesson_draw.bars("claim9", shown, "time of a step, s", title)]
    rest = [pretty(name) for name, ns in times.items() if not ns]
    if rest:
        why = "the quick course leaves them out" if course.quick else course.why_missing("9_networks")
        told.missing.append(f"Not observed here ({why}), and ready to be named: {', '.join(rest)}.")
    return told
