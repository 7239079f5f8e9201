"""Claims 6 to 9 of the lecture: accelerators, networks, the two-layer net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeprof.pipeline import NOT_OBSERVED
from pipeprof.report import lesson_draw, units
from pipeprof.report.lesson_claims import EMULATED, MEASURED, Claim, stall
from pipeprof.report.lesson_course import Course, Rung
from pipeprof.report.lesson_draw import Bar

ACCELERATORS: Final = (
    ("V100 (2017)", "v100-resnet50"),
    ("A100 (2020)", "a100-resnet50"),
    ("H100 (2022)", "h100-resnet50"),
    ("B200 (2024), other model", "b200-retinanet"),
)
AGREE: Final = 1e-3
"""Relative difference in loss at the last iteration that counts as agreement (float32)."""
NEEDS_NO_GPU: Final = "NumPy"


def step_ns(rung: Rung) -> float | None:
    """Median time that the accelerator computed in a step, in ns, warm-up left out."""
    t = rung.answer.timeline
    seen = ~t.warmup & (t.compute_end_ns != NOT_OBSERVED) & (t.compute_start_ns != NOT_OBSERVED)
    return float(np.median((t.compute_end_ns - t.compute_start_ns)[seen])) if seen.any() else None


def accelerators(course: Course) -> Claim:
    """Claim 6: one loader before ever faster steps; compiled against eager."""
    claim = Claim(
        6,
        "The faster the accelerator, the worse it gets",
        "GPUs get faster much quicker than disks do, and the faster the step, the sooner the data is the bottleneck.",
        "",
        [
            (EMULATED, "the accelerators but the CPU, each with its published step time; the SSD"),
            (MEASURED, "the loader; the CPU's own training"),
        ],
        "The loader delivers what this machine's CPU cores can decode. A slow accelerator never notices; each "
        "faster one finishes its step sooner and then waits for the same batch. “Needed” is what the accelerator "
        "would take from the storage if it never waited: its images a second times the bytes of an image. "
        "Compiling a network (torch.compile) makes the step shorter on the same device, so it asks more of the "
        "loader, too. The B200's published figure is of another network (RetinaNet), so compare it with care.",
        [
            (
                "More CPU cores are what helps here; see what would be enough",
                f"pipeprof predict {course.directory / '6_accelerators-preset=h100-resnet50'}",
            ),
            (
                "Images decoded beforehand, for the H100",
                "pipeprof run scenarios/lesson/3_decoded.yaml --set accelerator.preset=h100/resnet50 --set accelerator.step_ms=null --set loader.workers=4",
            ),
        ],
    )
    names = [
        ("this CPU, really training", "6_cpu"),
        *((label, f"6_accelerators-preset={n}") for label, n in ACCELERATORS),
    ]
    runs = []
    for label, name in names:
        rung = course.get(name)
        if rung is None:
            claim.missing.append(f"{label}: not observed, {course.why_missing(name)}.")
        else:
            runs.append((label, rung))
    if runs:
        told = ", ".join(f"{label} {stall(rung)}" for label, rung in runs)
        needed = _needed(runs[-1][1])
        claim.answer = f"Before one and the same loader the accelerator waited: {told}. To stay busy, the last needs {units.byte_rate(needed)} from its storage."
        claim.charts = [lesson_draw.days("claim6_days", runs, "The same loader, ever faster accelerators")]
        claim.legend = lesson_draw.legend([rung for _, rung in runs])
        claim.tables = [_needs(runs)]
    _compiled(course, claim)
    claim.answer = claim.answer.strip() or "Not observed: none of its runs was made."
    return claim


def _full_rate(rung: Rung) -> float | None:
    """Samples a second at full speed: by the model of an emulated accelerator, else as it computed."""
    told = rung.said.meta.get("accelerator") or {}
    batch, step = told.get("step_batch_size"), told.get("step_ns")
    return batch * 1e9 / step if batch and step else rung.full_rate


def _needed(rung: Rung) -> float | None:
    full, size = _full_rate(rung), rung.bytes_per_sample
    return None if full is None or size is None else full * size


def _needs(runs: Sequence[tuple[str, Rung]]) -> Any:
    rows = [
        [
            label,
            units.sample_rate(_full_rate(rung)),
            units.size(rung.bytes_per_sample),
            units.byte_rate(_needed(rung)),
            units.sample_rate(rung.rate),
            stall(rung),
            "emulated"
            if rung.said.emulated and rung.said.meta["accelerator"].get("emulated")
            else "measured",
        ]
        for label, rung in runs
    ]
    heads = [
        "accelerator",
        "could take",
        "bytes an image",
        "needed from storage",
        "got",
        "waited",
        "accelerator is",
    ]
    return lesson_draw.table("What each accelerator needs of its storage to stay busy", heads, rows)


def _compiled(course: Course, claim: Claim) -> None:
    eager, compiled = (course.get(f"6_compile-compile={word}") for word in ("false", "true"))
    if eager is None or compiled is None:
        which = "false" if eager is None else "true"
        claim.missing.append(
            f"torch.compile: not observed, {course.why_missing(f'6_compile-compile={which}')}."
        )
        return
    rows = [(label, step_ns(rung)) for label, rung in (("eager", eager), ("compiled", compiled))]
    shown = [Bar(label, ns / 1e6, units.duration(ns), "accelerator") for label, ns in rows if ns]
    name = str((eager.said.meta.get("model") or {}).get("name") or "the network")
    if len(shown) == 2:
        claim.answer += f" torch.compile changed the step of {name} on this CPU from {shown[0].text} to {shown[1].text} (measured)."
        claim.charts.append(
            lesson_draw.bars(
                "claim6_compile",
                shown,
                "time of a step, ms",
                f"The same step of {name}, eager and compiled, on this CPU (measured)",
            )
        )


def networks(course: Course) -> Claim:
    """Claim 7: CPU against GPU, cuDNN on and off."""
    held = course.networks
    batch = held.get("batch")
    claim = Claim(
        7,
        "CPU against GPU",
        "Training a network on a GPU is 60 to 70 times as fast as on a CPU, and NVIDIA's library cuDNN makes the "
        "GPU about 3 times as fast as plain CUDA code.",
        "",
        [(MEASURED, f"forward and backward pass, batches of {batch} images of 224 × 224 pixels")],
        "A training step is mostly the multiplication of large matrices: millions of independent "
        "multiplications, which a GPU does thousands at a time and a CPU a few dozen. How many times faster "
        "depends on both devices; the lecture compared a graphics card with a desktop CPU of 2016. ResNet-200 "
        "is built as in its paper (3, 24, 36 and 3 blocks), since torchvision ends at 152 layers.",
        [
            (
                "On a machine with a GPU this fills the other columns",
                "pipeprof lesson --claim 7 --out runs/lesson-gpu",
            )
        ],
    )
    times = {(r["network"], r["device"], r["cudnn"]): r for r in held.get("times") or []}
    if not times:
        claim.answer = f"Not observed: {course.why_missing('7_networks')}."
        return claim
    names = list(dict.fromkeys(network for network, _, _ in times))
    rows = [_network_row(name, times) for name in names]
    cpu = [(name, _ns(times, name, "cpu", None)) for name in names]
    shown = [Bar(_pretty(name), ns / 1e9, units.duration(ns), "decode") for name, ns in cpu if ns]
    cuda = held.get("cuda")
    claim.answer = (
        f"On this CPU ({units.plural(int(held.get('threads') or 0), 'thread')}), forward and backward of a batch of {batch} took "
        f"{', '.join(f'{bar.text} for {bar.label}' for bar in shown)} (measured). "
    )
    ratios = [r for r in (_ratio(times, name) for name in names) if r]
    claim.answer += (
        f"On the GPU ({cuda}) {units.digits(min(ratios))} to {units.digits(max(ratios))} times as fast."
        if ratios
        else "The GPU's side is not observed: there is no GPU here."
    )
    claim.charts = [
        lesson_draw.bars(
            "claim7", shown, "forward and backward of one batch on the CPU, s", "On the CPU (measured)"
        )
    ]
    heads = [
        "network",
        "CPU",
        "GPU with cuDNN",
        "GPU without cuDNN",
        "GPU over CPU (lecture: 60–70)",
        "cuDNN over plain CUDA (lecture: about 3)",
    ]
    claim.tables = [lesson_draw.table("Time of forward and backward", heads, rows)]
    return claim


def _ns(times: Mapping[Any, Any], name: str, device: str, cudnn: bool | None) -> float | None:
    return (times.get((name, device, cudnn)) or {}).get("step_ns")


def _ratio(times: Mapping[Any, Any], name: str) -> float | None:
    cpu, gpu = _ns(times, name, "cpu", None), _ns(times, name, "cuda", True)
    return cpu / gpu if cpu and gpu else None


def _network_row(name: str, times: Mapping[Any, Any]) -> list[str]:
    cpu, gpu, plain = (_ns(times, name, *place) for place in (("cpu", None), ("cuda", True), ("cuda", False)))
    return [
        _pretty(name),
        units.duration(cpu),
        units.duration(gpu),
        units.duration(plain),
        f"{units.digits(cpu / gpu)} times" if cpu and gpu else units.NOT_OBSERVED,
        f"{units.digits(plain / gpu)} times" if plain and gpu else units.NOT_OBSERVED,
    ]


_NAMES: Final = {
    "vgg": "VGG-", "resnet": "ResNet-", "alexnet": "AlexNet", "googlenet": "GoogLeNet", "densenet": "DenseNet-",
    "wide_resnet50_2": "Wide ResNet-50-2", "resnext50_32x4d": "ResNeXt-50",
}  # fmt: skip


def _pretty(name: str) -> str:
    """A network as the lecture writes it."""
    if name in _NAMES:
        return _NAMES[name]
    head = name.rstrip("0123456789")
    return _NAMES.get(head, head) + name[len(head) :]


def two_layer(course: Course) -> Claim:
    """Claim 8: the two-layer net in every way; the optimisers."""
    held = course.two_layer
    claim = Claim(
        8,
        "One two-layer net, written in every way of the notes",
        "The same net of two layers (64 samples of 1000 numbers, 100 hidden units, 10 outputs, 500 iterations) in "
        "NumPy, with tensors, with automatic gradients, with layers and optimisers, with a DataLoader; NumPy cannot "
        "use a GPU; a static graph can be optimised, a dynamic one is built anew in each iteration.",
        "",
        [(MEASURED, "every way and every optimiser, on this machine")],
        "All ways compute the same numbers, so they must end at the same loss; what differs is who works out the "
        "gradients and how much bookkeeping there is for each iteration. For so small a net the bookkeeping is "
        "most of the time: NumPy, with the least of it, is not slow here. With the DataLoader each iteration "
        "fetches eight batches of 8 samples one by one, and that, not the training, is what takes the time: the "
        "lecture's point in small. Compiling (a static graph) saves bookkeeping once it has been paid for in the "
        "first iteration.",
        [
            (
                "Another optimiser, with any scenario",
                "pipeprof run scenarios/two_layer_net.yaml --set model.optimizer=adam",
            ),
            (
                "A GPU, where there is one",
                "pipeprof run scenarios/two_layer_net.yaml --set accelerator.kind=cuda",
            ),
        ],
    )
    rows = held.get("outcomes") or []
    if rows:
        _ways(claim, held, rows)
    else:
        claim.missing.append(f"The ways to write it: not observed, {course.why_missing('8_two_layer')}.")
    _optimizers(course, claim)
    claim.answer = claim.answer.strip() or "Not observed: none of its runs was made."
    return claim


def _ways(claim: Claim, held: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    done = [row for row in rows if row.get("losses")]
    claim.answer = " ".join(
        _agreement(d_in, [r for r in done if r["d_in"] == d_in])
        for d_in in dict.fromkeys(r["d_in"] for r in done)
    )
    first = [row for row in done if row["d_in"] == done[0]["d_in"]] if done else []
    shown = [
        Bar(_way(row), row["iteration_ns"] / 1e3, units.duration(row["iteration_ns"]), "accelerator")
        for row in first
    ]
    if shown:
        title = f"One iteration in each way, {first[0]['d_in']} inputs (measured)"
        how = "The scale is logarithmic: each mark is ten times the one before."
        claim.charts.append(
            lesson_draw.bars("claim8_ways", shown, "time of an iteration, µs", title, how, log=True)
        )
    heads = [
        "way",
        "inputs",
        f"loss at iteration {held.get('iterations', 500)}",
        "each iteration",
        "first iteration",
    ]
    cells = [
        [
            _way(row),
            str(row["d_in"]),
            f"{row['losses'][-1]:.6g}",
            units.duration(row["iteration_ns"]),
            units.duration(row["first_iteration_ns"]),
        ]
        if row.get("losses")
        else [
            _way(row),
            str(row["d_in"]),
            f"not observed: {row.get('why')}",
            units.NOT_OBSERVED,
            units.NOT_OBSERVED,
        ]
        for row in rows
    ]
    claim.tables.append(lesson_draw.table("Every way", heads, cells))
    if not any(row["device"] == "cuda" for row in rows):
        claim.missing.append("On a GPU: not observed, there is none here.")


def _way(row: Mapping[str, Any]) -> str:
    return f"{row['way']}, GPU" if row["device"] == "cuda" else str(row["way"])


def _agreement(d_in: int, rows: Sequence[Mapping[str, Any]]) -> str:
    last = [row["losses"][-1] for row in rows]
    apart = (max(last) - min(last)) / abs(min(last)) if min(last) else 0.0
    verb = "agree" if apart <= AGREE else "do not agree"
    fastest = min(rows, key=lambda row: row["iteration_ns"])
    return (
        f"With {d_in} inputs, {len(rows)} ways {verb}: losses of {min(last):.4g} after {len(rows[0]['losses'])} iterations, "
        f"{apart:.1e} apart (relative; {AGREE:g} allowed). Fastest: {_way(fastest)}, {units.duration(fastest['iteration_ns'])} an iteration."
    )


OPTIMIZERS: Final = {
    "sgd": "SGD",
    "momentum": "SGD with momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "lbfgs": "L-BFGS (4 evaluations)",
}


def _optimizers(course: Course, claim: Claim) -> None:
    shown = []
    for word, label in OPTIMIZERS.items():
        rung = course.get(f"8_optimizers-optimizer={word}")
        ns = step_ns(rung) if rung is not None else None
        if ns is not None:
            shown.append(Bar(label, ns / 1e3, units.duration(ns), "decode"))
    if not shown:
        claim.missing.append(f"The optimisers: not observed, {course.why_missing('8_optimizers')}.")
        return
    cheap, dear = min(shown, key=lambda b: b.value), max(shown, key=lambda b: b.value)
    claim.answer += f" A step with {cheap.label} takes {cheap.text}, with {dear.label} {dear.text}."
    claim.charts.append(
        lesson_draw.bars(
            "claim8_optimizers", shown, "time of a step, µs", "One step with each optimiser (measured)"
        )
    )


NETWORKS: Final = (
    "alexnet",
    "vgg16",
    "googlenet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "densenet121",
)


def workloads(course: Course) -> Claim:
    """Claim 9: the networks of the notes as workloads."""
    claim = Claim(
        9,
        "The networks of the notes, ready to train",
        "AlexNet, VGG, GoogLeNet, ResNet, Wide ResNet, ResNeXt and DenseNet come with torchvision; start from "
        "weights trained by others where you can.",
        "",
        [(MEASURED, "a training step on this CPU, batches of 2 images")],
        "Each of these networks can stand in any scenario, in place of the emulated step: `model.name` says "
        "which, `model.weights` starts it from a checkpoint file of yours. The longer its step, the longer a "
        "loader may take without being noticed: what waits is decided by the two together.",
        [
            (
                "Any of them, with any data",
                "pipeprof run scenarios/lesson/6_cpu.yaml --set model.name=densenet121",
            ),
            (
                "From a checkpoint file",
                "pipeprof run scenarios/lesson/6_cpu.yaml --set model.name=resnet18 --set model.weights=FILE",
            ),
        ],
    )
    shown, rest = [], []
    for name in NETWORKS:
        rung = course.get(f"9_networks-name={name}")
        ns = step_ns(rung) if rung is not None else None
        if ns is None:
            rest.append(_pretty(name))
        else:
            shown.append(Bar(_pretty(name), ns / 1e9, units.duration(ns), "accelerator"))
    if shown:
        claim.answer = f"A training step of 2 images on this CPU took {', '.join(f'{bar.text} with {bar.label}' for bar in shown)} (measured)."
        claim.charts = [
            lesson_draw.bars(
                "claim9", shown, "time of a training step, s", "A step of each network on this CPU (measured)"
            )
        ]
    else:
        claim.answer = f"Not observed: {course.why_missing('9_networks')}."
    if rest:
        why = "the quick course leaves them out" if course.quick else course.why_missing("9_networks")
        claim.missing.append(f"Not observed here, though they run: {', '.join(rest)} ({why}).")
    return claim
