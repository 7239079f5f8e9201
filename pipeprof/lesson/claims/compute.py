"""Claims 6, 7 and 9 of the lecture: accelerators and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeprof import units
from pipeprof.lesson.claims import draw
from pipeprof.lesson.claims.claim import Claim, blank_claim
from pipeprof.lesson.claims.data import moves, stall, unobserved
from pipeprof.lesson.claims.draw import Bar
from pipeprof.lesson.kept import NetworkTime, NetworkTimes
from pipeprof.lesson.results import LessonRun, Results
from pipeprof.report.page.section import Table
from pipeprof.vocabulary.owners import ACCELERATOR

ACCELERATORS: Final = (
    ("this CPU (real)", "6_cpu"),
    ("V100", "6_accelerators-preset=v100-resnet50"),
    ("A100", "6_accelerators-preset=a100-resnet50"),
    ("H100", "6_accelerators-preset=h100-resnet50"),
    ("B200, other network", "6_accelerators-preset=b200-retinanet"),
)
OTHER_NETWORK: Final = "6_accelerators-preset=b200-retinanet"
"""Run of the accelerator whose published figure is for another network: not a rung of the others' ladder."""
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


def step_ns(run: LessonRun | None) -> float | None:
    """Return the median time that the accelerator computed in a step; None if not observed."""
    return None if run is None else run.analysis.timeline.usual_compute_ns


def accelerators(results: Results) -> Claim:
    """Build claim 6: one loader before ever faster steps; compiled against eager."""
    claim = blank_claim(6, results.directory)
    runs = []
    for label, name in ACCELERATORS:
        run = results.run(name)
        if run is None:
            claim.missing.append(f"{label}: not observed ({results.why_missing(name)}).")
        else:
            real = run.said.meta.accelerator
            runs.append((f"{real.name} (real)" if real.device_of_torch else label, run))
    if runs:
        ladder = [(label, run) for label, run in runs if run.name != OTHER_NETWORK]
        each = ", ".join(f"{label} {stall(run)}" for label, run in ladder or runs)
        claim.answer = (
            f"Fed by one and the same loader (measured), the accelerator waited: {each} of the time."
        )
        claim.short = moves(ladder or runs)
        if ladder and len(ladder) < len(runs):
            claim.more.append(
                f"The B200 waited {stall(runs[-1][1])}: its step is of another network with larger images, "
                "which takes longer, so that it is not a rung of this ladder."
            )
        how = "All but the first are emulated; the loader is the same. Only the B200 has another network."
        claim.charts = [draw.days("claim6_days", runs, "The same loader, ever faster accelerators", how)]
        claim.legend = draw.legend([run for _, run in runs])
        claim.tables = [_needs(runs)]
    _compiled(results, claim)
    if not claim.answer and claim.more:
        claim.answer = claim.more.pop()
    return claim if claim.answer else unobserved(claim, results, "6_accelerators")


def _needed(run: LessonRun) -> float | None:
    full, size = run.top_rate, run.bytes_per_sample
    return None if full is None or size is None else full * size


def _needs(runs: Sequence[tuple[str, LessonRun]]) -> Table:
    rows = [
        [
            label,
            units.sample_rate(run.top_rate),
            units.size(run.bytes_per_sample),
            units.byte_rate(_needed(run)),
            units.sample_rate(run.rate),
            stall(run),
            "emulated" if run.said.meta.accelerator.emulated else "measured",
        ]
        for label, run in runs
    ]
    heads = ["accelerator", "could take", "an image has", "needs of storage", "got", "waited", "its speed is"]
    return draw.table("What each needs of its storage to stay busy", heads, rows)


def _compiled(results: Results, claim: Claim) -> None:
    eager, compiled = (results.run(f"6_compile-compile={word}") for word in ("false", "true"))
    times = [("eager", step_ns(eager)), ("compiled", step_ns(compiled))]
    shown = [
        Bar(label, ns / 1e6, units.duration(ns), ACCELERATOR.name) for label, ns in times if ns is not None
    ]
    if eager is None or len(shown) < 2:
        name = "6_compile-compile=false" if eager is None else "6_compile-compile=true"
        claim.missing.append(f"torch.compile: not observed ({results.why_missing(name)}).")
        return
    network = eager.said.meta.model.name or "the network"
    device = eager.said.meta.accelerator
    where = f"the {device.name}" if device.device_of_torch else "this CPU"
    claim.more.append(
        f"On {where} torch.compile took the step of {network} from {shown[0].text} to {shown[1].text} "
        f"(measured){_direction(shown[0].value, shown[1].value, where)}."
    )
    title = f"A step of {network} on {where}, eager and compiled (measured)"
    claim.charts.append(draw.bars("claim6_compile", shown, "time of a step, ms", title))


def _direction(eager: float, compiled: float, where: str) -> str:
    if compiled < eager:
        return ": the same network, a faster step"
    return f": no gain for a small batch on {where}; what it saves is many small kernels of a GPU"


def networks(results: Results) -> Claim:
    """Build claim 7: CPU against GPU, cuDNN on and off."""
    claim, kept = blank_claim(7, results.directory), results.networks
    times = {(time.network, *_place(time)): time.step_ns for time in kept.times}
    names = list(dict.fromkeys(network for network, _, _ in times))
    shown = [
        Bar(pretty(name), ns / units.NS_PER_S, units.duration(ns), ACCELERATOR.name)
        for name in names
        if (ns := times.get((name, "cpu", None)))
    ]
    if not shown:
        return unobserved(claim, results, "7_networks")
    each = ", ".join(f"{bar.label} {bar.text}" for bar in shown)
    threads = units.plural(kept.threads or 1, "thread")
    batch = f"a batch of {kept.batch} images"
    claim.answer = f"Forward and backward of {batch} on this CPU ({threads}, measured): {each}."
    claim.more = [_against(kept, times, names)]
    claim.short = "Measured on the CPU alone." if not kept.cuda else "Measured on the CPU and on the GPU."
    title = f"On the CPU, batches of {kept.batch} images (measured)"
    claim.charts = [draw.bars("claim7", shown, "forward and backward of one batch, s", title)]
    heads = [
        "network",
        "CPU",
        "GPU with cuDNN",
        "GPU without",
        "GPU over CPU (lecture: 60–70)",
        "cuDNN (lecture: about 3)",
    ]
    rows = [_network_row(name, times) for name in names]
    claim.tables = [draw.table("Forward and backward of one batch", heads, rows)]
    return claim


def _place(time: NetworkTime) -> tuple[str, bool | None]:
    """Return where a network was timed, with cuDNN or without; a GPU without the switch counts as with."""
    return ("cpu", None) if time.device == "cpu" else ("gpu", time.cudnn is not False)


Times = Mapping[tuple[str, str, bool | None], float | None]


def _against(kept: NetworkTimes, times: Times, names: Sequence[str]) -> str:
    ratios = [
        cpu / gpu
        for name in names
        if (cpu := times.get((name, "cpu", None))) and (gpu := times.get((name, "gpu", True)))
    ]
    if not ratios:
        return "The GPU's side was not observed: there is no GPU here."
    return (
        f"On the GPU ({kept.cuda}) it is {units.digits(min(ratios))} to {units.digits(max(ratios))} "
        "times as fast (measured)."
    )


def _network_row(name: str, times: Times) -> list[str]:
    cpu, gpu, plain = (times.get((name, *place)) for place in (("cpu", None), ("gpu", True), ("gpu", False)))
    return [
        pretty(name),
        *(units.duration(value) for value in (cpu, gpu, plain)),
        f"{units.digits(cpu / gpu)} times" if cpu and gpu else units.NOT_OBSERVED,
        f"{units.digits(plain / gpu)} times" if plain and gpu else units.NOT_OBSERVED,
    ]


def pretty(name: str) -> str:
    """Return a network's name as the lecture writes it."""
    if name in _PRETTY:
        return _PRETTY[name]
    head = name.rstrip("0123456789")
    return _PRETTY.get(head, head) + name[len(head) :]


def workloads(results: Results) -> Claim:
    """Build claim 9: the networks of the notes as workloads."""
    claim = blank_claim(9, results.directory)
    times = {name: step_ns(results.run(f"9_networks-name={name}")) for name in NETWORKS}
    shown = [
        Bar(pretty(name), ns / units.NS_PER_S, units.duration(ns), ACCELERATOR.name)
        for name, ns in times.items()
        if ns
    ]
    if not shown:
        return unobserved(claim, results, "9_networks")
    each = ", ".join(f"{bar.label} {bar.text}" for bar in shown)
    claim.answer = f"A training step of 2 images on this CPU (measured): {each}."
    claim.short = f"{len(shown)} of {len(NETWORKS)} networks were trained here."
    title = "A training step of each network on this CPU, batches of 2 images (measured)"
    claim.charts = [draw.bars("claim9", shown, "time of a step, s", title)]
    rest = [pretty(name) for name, ns in times.items() if not ns]
    if rest:
        why = "the quick course leaves them out" if results.quick else results.why_missing("9_networks")
        claim.missing.append(f"Not observed here ({why}), and ready to be named: {', '.join(rest)}.")
    return claim
