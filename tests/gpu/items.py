"""The items of the day: what can be found out on a device alone."""

from __future__ import annotations

import json
import statistics
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import pipeprof
from pipeprof.devices import presets
from pipeprof.lesson import networks, page
from pipeprof.lesson.measurements import NetworkTiming, ScenarioRun, lesson_directory
from pipeprof.lesson.runner import Record
from pipeprof.lesson.runner import take as take_course
from pipeprof.measure.device.clock import DeviceClock
from pipeprof.measure.host.survey_machine import median_ns
from pipeprof.record.reader import load
from pipeprof.scenario import load as load_scenarios
from pipeprof.timeline import NOT_OBSERVED
from tests.fake_device import FakeDevice
from tests.gpu import train_jpegs
from tests.gpu.day import Figures, Item, Place
from tests.gpu.work import Training, bench, cycle_ms, forked, timed, traced

ROOT: Final = Path(__file__).parents[2]
BOUND_POINTS: Final = 2.0
ANCHOR_BOUND_US: Final = 100.0
"""What an anchor may be wrong by: a tenth of a per cent of a step of 100 ms."""


def facts(place: Place) -> Figures:
    """Say which device it is, and whether NVML's and torch's UUIDs are of one device."""
    told = place.device.facts(place.device.index())
    found: Figures = {
        "kind": told.kind,
        "name": told.name,
        "devices": place.device.count(),
        "uuid": told.uuid,
        "memory_bytes": place.device.memory_bytes(place.device.index()),
        "torch": torch.__version__,
        "cuda": told.cuda,
        "hip": told.hip,
        "threads": torch.get_num_threads(),
    }
    try:
        from pipeprof.measure.host.sensors.nvml import Gpus

        gpus = Gpus()
    except Exception as error:
        return {**found, "nvml": f"not observed: {error}"}
    values, uuids = gpus.read(), gpus._uuids
    missing = gpus.unavailable()
    gpus.close()
    return {
        **found,
        "nvml": sorted(values),
        "nvml refuses": missing,
        "nvml uuids": uuids,
        "held": f"GPU-{told.uuid}" in uuids.values(),
    }


def marked_tests(place: Place) -> Figures:
    """Run the tests that wait for a device."""
    tests = (ROOT / "tests").rglob("test_*.py")
    files = [str(path) for path in tests if "pytest.mark.gpu" in path.read_text()]
    counted = Counted()
    here = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    code = pytest.main(["-m", "gpu", *here, *files], plugins=[counted])
    good = code == 0 and (place.small or counted.outcomes["passed"] > 0)
    return {"files": len(files), **counted.outcomes, "exit code": int(code), "held": good}


class Counted:
    """Counts what tests came to."""

    def __init__(self) -> None:
        self.outcomes = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1


def stall(place: Place) -> Figures:
    """Compare the stall by events with the idle time in a trace, of loaders that keep up and that do not."""
    found: Figures = {}
    device = timed(place)
    training = Training(device)
    for share in (0.5, 1.5):
        with traced(device) as busy:
            times = training.train(20 if place.small else 60, share)
        span = times[-1].compute_end_ns - times[0].copy_start_ns  # type: ignore[operator]
        waited = sum(t.device_wait_ns for t in times[1:]) / span  # type: ignore[misc]
        found[f"stall at load {share}, %"] = 100 * waited
        found[f"idle in the trace at load {share}, %"] = 100 * (1 - busy.share)
        found[f"difference at load {share}, points"] = 100 * (waited - (1 - busy.share))
    found["step, ms"] = training.step_s * 1e3
    differences = [abs(value) for name, value in found.items() if name.startswith("difference")]
    return {**found, "held": max(differences) <= BOUND_POINTS}


def anchors(place: Place) -> Figures:
    """Measure the error of the clock's anchors, the drift of the clocks, and what an old anchor is off by."""
    clock = DeviceClock(place.device, place.device.new_stream(), time.monotonic_ns)
    first, errors, off, ages = clock.anchor, [], [], []
    for _ in range(10 if place.small else 60):
        time.sleep(0.01 if place.small else 0.1)
        clock.renew()
        errors.append(clock.anchor.error_ns / 1e3)
        off.append((first.at(clock.anchor.event) - clock.anchor.time_ns) / 1e3)
        ages.append((clock.anchor.time_ns - first.time_ns) / 1e9)
    slope = float(np.polyfit(ages, off, 1)[0])
    return {
        "largest error of an anchor, us, median": statistics.median(errors),
        "largest error of an anchor, us, worst": max(errors),
        "drift, ppm": slope,
        "off after the last, us": off[-1],
        "seconds": ages[-1],
        "held": statistics.median(errors) <= ANCHOR_BOUND_US,
    }


def link(place: Place) -> Figures:
    """Measure copies to the device: pageable and pinned, with and without non_blocking, by size."""
    found: Figures = {}
    device = place.device
    if isinstance(device, FakeDevice):
        device.all_pinned = False
    returned: dict[str, float] = {}
    for size in (2**24,) if place.small else (2**20, 16 * 2**20, 256 * 2**20):
        pageable = torch.ones(size, dtype=torch.uint8)
        for name, source in (("pageable", pageable), ("pinned", device.pin(pageable))):
            if source is None:
                continue
            for non_blocking in (False, True):

                def copy(source: Any = source, non_blocking: bool = non_blocking) -> None:
                    device.move(source, non_blocking)
                    device.synchronize()

                whole = median_ns(copy)
                host = median_ns(partial(device.move, source, non_blocking))
                device.synchronize()
                way = f"{name}{', non_blocking' if non_blocking else ''}, {size / 2**20:g} MiB"
                found[f"{way}, GB/s"] = size / whole
                returned[way] = host / whole
    found["the call's share of the copy"] = returned
    quick = [share for way, share in returned.items() if way.startswith("pinned, non_blocking")]
    return {**found, "held": not quick or quick[-1] < 0.5}


class Tensors(Dataset[torch.Tensor]):
    """Pictures as floats: 602 kB each, 38 MB a batch of 64."""

    def __init__(self, count: int, side: int) -> None:
        self.count, self.picture = count, torch.zeros(3, side, side)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.picture.clone()


def pin_thread(place: Place) -> Figures:
    """Look at torch's pin thread: what pinning takes, and what it takes from a busy main thread."""
    found: Figures = {}
    for pinned in (False, True):
        images = Tensors(320 if place.small else 64 * 120, 32 if place.small else 224)
        loader = DataLoader(images, batch_size=16 if place.small else 64, num_workers=2, pin_memory=pinned)
        out = place.directory / f"pin-{pinned}"
        began, counted, turns = time.monotonic(), 0, 0
        with pipeprof.profile(loader, out=out) as batches:
            for batch in batches:
                until = time.monotonic() + 0.005
                while time.monotonic() < until:  # Python that holds the GIL
                    turns += 1
                counted += 1
                really = place.device.is_pinned(batch)
        word = "pinned" if pinned else "pageable"
        steps = load(out).table("steps").to_pylist()
        way = [
            (row["arrival_ns"] - row["received_ns"]) / 1e6
            for row in steps
            if row["arrival_ns"] is not None and row["received_ns"] is not None
        ]
        found |= {
            f"{word}: batches/s": counted / (time.monotonic() - began),
            f"{word}: turns of the main thread a ms": turns / counted / 5,
            f"{word}: from received to the loop, ms, median": statistics.median(way) if way else None,
            f"{word}: really pinned": really,
        }
    return found


def prefetch(place: Place) -> Figures:
    """Compare copies in the step's stream with copies on a side stream."""
    data = {"sample_bytes": 12288 if place.small else 602112}
    loader = {"batch_size": 8 if place.small else 64, "pin_memory": True}
    found: Figures = {}
    for on in (False, True):
        run = bench(
            place, f"prefetch-{on}", data=data, loader=loader,
            accelerator={"prefetch_to_device": on}, model=_network(place),
        )  # fmt: skip
        t = run.timeline
        overlapped = np.maximum(0, np.minimum(t.copy_end_ns[1:], t.compute_end_ns[:-1]) - t.copy_start_ns[1:])
        copied = (t.copy_end_ns - t.copy_start_ns)[1:]
        word = "side stream" if on else "same stream"
        found |= {
            f"{word}: ms a step": cycle_ms(run),
            f"{word}: copies under computation, %": 100 * float(overlapped.sum() / max(1, copied.sum())),
            f"{word}: copies overlap": run.run.meta.accelerator.copies_overlap,
        }
    under = found["same stream: copies under computation, %"]
    found["held"] = under < 1 and found["side stream: copies overlap"]
    return found


def _network(place: Place, name: str = "resnet18") -> dict[str, Any]:
    return {"name": "two_layer_net"} if place.small else {"name": name}


def tier_pinned(place: Place) -> Figures:
    """Take batches of the tier `pinned`."""
    found = bench(place, "pinned", storage={"tier": "pinned", "keep": "decoded"})
    t = found.timeline
    return {
        "copy, ms, median": float(np.median(t.copy_end_ns - t.copy_start_ns)) / 1e6,
        "stall, %": 100 * float(found.verdict.stall_share or 0),
        "held": found.run.meta.loaders[0].pin_memory is True,
    }


ON_DEVICE: Final = ["accelerator.kind=device", "accelerator.step_ms=null", "accelerator.link=null"]
FIFTH: Final = ("5_copy_pageable", "5_copy_pinned", "5_copy_overlapped", "5_copy_none")


def claims(place: Place) -> Figures:
    """Take claims 5, 6 and 7 of the lesson on the device, and build their page."""
    quick = ["run.steps=8", "run.warmup_steps=2"] if place.small else ["run.steps=48", "run.warmup_steps=4"]
    if place.small:
        kept = networks.LECTURE_NETWORKS["resnet18"]
        networks.LECTURE_NETWORKS.clear()  # type: ignore[attr-defined]
        networks.LECTURE_NETWORKS["resnet18"] = kept  # type: ignore[index]
        networks.time_network = partial(networks.time_network, side=32)  # type: ignore[assignment]
        small = ["data.sample_bytes=12288", "model.name=two_layer_net"]
        measurements = _lesson_runs("5_copy_pinned", [*ON_DEVICE, *quick, *small])
    else:
        measurements = [run for name in FIFTH for run in _lesson_runs(name, [*ON_DEVICE, *quick])]
        for name in ("6_cpu", "6_compile"):
            measurements += _lesson_runs(name, ["accelerator.kind=device", *quick])
        measurements += _lesson_runs("6_accelerators", ["run.steps=25", "run.warmup_steps=4"])
    course = [*measurements, NetworkTiming(quick=True)]
    out = place.directory / "lesson"
    code = take_course(course, Record(out, quick=True), print)
    made = page.write(out, out / "index.html")
    found = json.loads((out / "7_networks.json").read_text())
    times = {
        f"{time['network']} on {time['device']}, cuDNN {time['cudnn']}, ms": (time["step_ns"] or 0) / 1e6
        for time in found["times"]
    }
    return {
        "measurements": len(course),
        "page, bytes": made.stat().st_size,
        "the lecture: GPU over CPU": "60 to 70 times",
        "the lecture: cuDNN over none": "about 3 times",
        **times,
        "held": code == 0,
    }


def _lesson_runs(name: str, overrides: list[str]) -> list[Any]:
    file = lesson_directory() / f"{name}.yaml"
    return [ScenarioRun(scenario, file) for scenario in load_scenarios(file, overrides)]


def compiled(place: Place) -> Figures:
    """Compare a step compiled with an eager one."""
    if place.small:
        torch.compile = lambda network: network  # type: ignore[assignment]
    found: Figures = {}
    for on in (False, True):
        run = bench(
            place, f"compile-{on}", data={"sample_bytes": 12288 if place.small else 602112},
            loader={"batch_size": 8 if place.small else 64}, model=_network(place),
            accelerator={"compile": on, "amp": True, "channels_last": True},
        )  # fmt: skip
        found[f"{'compiled' if on else 'eager'}: ms a step on the device"] = _step_ms(run)
        found[f"{'compiled' if on else 'eager'}: parts, %"] = _parts(run)
    return found


def _step_ms(run: Any) -> float:
    t = run.timeline
    seen = t.measured & (t.compute_end_ns != NOT_OBSERVED)
    return float(np.median((t.compute_end_ns - t.compute_start_ns)[seen])) / 1e6


def _parts(run: Any) -> dict[str, float]:
    rows = run.run.table("parts").to_pylist()
    whole = sum(row["end_ns"] - row["start_ns"] for row in rows)
    names = {row["part"] for row in rows}
    return {
        name: 100 * sum(row["end_ns"] - row["start_ns"] for row in rows if row["part"] == name) / whole
        for name in sorted(names)
    }


def utilisation(place: Place) -> Figures:
    """Compare AU, emulated with the step that was measured, with the busy share of the real step."""
    data = {"sample_bytes": 12288 if place.small else 602112}
    size = 8 if place.small else 64
    fast = {"amp": True, "channels_last": True}
    real = bench(
        place,
        "real",
        data=data,
        loader={"batch_size": size},
        model=_network(place, "resnet50"),
        accelerator=fast,
    )
    step_ms = _step_ms(real)
    emulated = bench(
        place, "emulated", data=data, loader={"batch_size": size},
        accelerator={"kind": "emulated", "step_ms": round(step_ms, 3)},
    )  # fmt: skip
    found = {
        "step, ms": step_ms,
        "images/s of the step alone": size / step_ms * 1e3,
        "busy on the device, %": 100 * float(real.verdict.as_dict()["utilization"]),
        "AU emulated with that step, %": 100 * float(emulated.verdict.as_dict()["utilization"]),
    }
    for name in ("v100/resnet50", "a100/resnet50", "h100/resnet50"):
        model = presets.accelerator_preset(name)
        found[f"preset {name}, images/s"] = model.batch_size / model.step_ns * 1e9
    return found


def overhead(place: Place) -> Figures:
    """Run a script on JPEGs from a disk, plain and traced in turn, and compare their steps a second."""
    from tests.benchmarks.overhead import images

    folder = place.directory / "images"
    folder.mkdir()
    images(folder, 8 if place.small else 384)
    steps, rest = ("4", ["resnet18", "4", "32"]) if place.small else ("60", ["resnet50", "32", "224"])
    arguments = [str(folder), steps, *rest]
    rates: dict[str, list[float]] = {"plain": [], "traced": []}
    script = str(Path(train_jpegs.__file__))
    turns = ("plain", "traced") if place.small else ("plain", "traced", "traced", "plain")
    for number, way in enumerate(turns):
        out = place.directory / f"{number}-{way}"
        main = partial(_plain if way == "plain" else partial(_traced, out), script, arguments)
        said = forked(main, place.directory / f"{number}-{way}.txt", 40)
        rates[way] += [float(line.split()[1]) for line in said.splitlines() if line.startswith("steps/s")]
    plain, observed = (statistics.mean(rates[way]) for way in ("plain", "traced"))
    return {
        "plain, steps/s": plain,
        "traced, steps/s": observed,
        "slower by, %": 100 * (plain / observed - 1),
        "runs": rates,
    }


def _plain(script: str, arguments: list[str]) -> None:
    import runpy
    import sys

    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _traced(out: Path, script: str, arguments: list[str]) -> None:
    import sys

    from pipeprof.cli import main as door

    sys.argv = ["pipeprof", "trace", "--no-report", "-q", "--out", str(out), script, *arguments]
    door()


def nvml(place: Place) -> Figures:
    """Compare the busy share of a device that works half the time with NVML's own figure."""
    device = timed(place)
    training = Training(device)
    values: list[float] = []
    ended = threading.Event()
    why = ""
    try:
        from pipeprof.measure.host.sensors.nvml import Gpus

        gpus: Any = Gpus()
    except Exception as error:
        gpus, why = None, f"not observed: {error}"

    def sample() -> None:
        while not ended.wait(0.1):
            values.extend(v for name, v in gpus.read().items() if name.endswith(".utilization"))

    thread = threading.Thread(target=sample)
    if gpus is not None:
        thread.start()
    try:
        count = 10 if place.small else max(20, int(8 / (2 * training.step_s)))
        with traced(device) as busy:
            times = training.train(count, load_share=2.0)
    finally:
        ended.set()
        if gpus is not None:
            thread.join()
            gpus.close()
    span = times[-1].compute_end_ns - times[0].copy_start_ns  # type: ignore[operator]
    worked = sum(t.compute_end_ns - t.copy_start_ns for t in times) / span  # type: ignore[operator]
    return {
        "busy by events, %": 100 * worked,
        "busy in the trace, %": 100 * busy.share,
        "NVML's utilisation, %": 100 * statistics.mean(values) if values else why,
        "held": abs(worked - busy.share) * 100 <= BOUND_POINTS,
    }


def together(place: Place) -> Figures:
    """Run the same training in one process and in two at once on one device."""
    steps = 10 if place.small else 100

    def main() -> None:
        times = Training(place.device).train(steps)
        span = times[-1].compute_end_ns - times[0].compute_end_ns  # type: ignore[operator]
        print("ms", span / (len(times) - 1) / 1e6)

    def ms(text: str) -> float:
        return float(next(line for line in text.splitlines() if line.startswith("ms ")).split()[1])

    alone = ms(forked(main, place.directory / "alone.txt", 15))
    texts: list[str] = []
    second = threading.Thread(target=lambda: texts.append(forked(main, place.directory / "second.txt", 15)))
    second.start()
    texts.append(forked(main, place.directory / "first.txt", 15))
    second.join()
    both = [ms(text) for text in texts]
    return {
        "alone, ms a step": alone,
        "beside another, ms a step": statistics.mean(both),
        "times as long": statistics.mean(both) / alone,
        "held": len(both) == 2,
    }


ITEMS: Final = (
    Item("device", "which device it is, and NVML's UUID of it", 20, facts),
    Item("tests", "the marked tests: pytest -m gpu", 90, marked_tests, installs=False),
    Item("stall", "stall by events against a trace; bound 2 points", 30, stall),
    Item("anchors", "the clock anchor's error; bound 100 us", 15, anchors),
    Item("link", "pageable and pinned rates, with and without non_blocking", 20, link),
    Item("pin_thread", "the pin thread and its GIL", 25, pin_thread),
    Item("prefetch", "prefetch on a side stream", 30, prefetch),
    Item("pinned", "batches of the tier pinned", 15, tier_pinned),
    Item("claims", "claims 5, 6 and 7 of the lesson, with their page", 90, claims),
    Item("compile", "compiled against eager", 40, compiled),
    Item("utilisation", "AU against a real step, and the presets", 30, utilisation),
    Item("overhead", "trace on a ResNet-50 with real JPEGs from a real disk", 100, overhead),
    Item("nvml", "a busy device against NVML's figure", 15, nvml),
    Item("together", "two processes on one device", 25, together),
)
