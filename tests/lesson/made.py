"""A lesson's directory with made runs: every rung of the quick course, without measuring anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeprof.lesson.course import course
from pipeprof.lesson.measurements import ScenarioRun
from tests.factory import MS, Plan, make_run

WAYS = ("NumPy, gradients by hand", "autograd", "Module, compiled (static graph)")
FAST, SLOW = (
    {"read": MS, "decode": 5 * MS, "collate": MS},
    {"read": 200 * MS, "decode": 90 * MS, "collate": MS},
)


def make_lesson(directory: Path, only: tuple[str, ...] = ("",), **told: Any) -> Path:
    """Runs whose names begin with one of `only`; hard disks are slow, all else is fast."""
    for rung in course(quick=True):
        if isinstance(rung, ScenarioRun) and rung.name.startswith(only):
            loader, slow = rung.scenario.loader, rung.scenario.storage.tier == "hdd"
            plan = Plan(
                batches=40,
                batch_size=loader.batch_size,
                workers=loader.workers,
                tier="hdd" if slow else "ssd",
                stages=SLOW if slow else FAST,
                compute=64 * MS,
            )
            said = {"path": None, "text": "", "resolved": rung.scenario.resolved()}
            make_run(directory / rung.name, plan, name=rung.name, scenario=said)
    directory.mkdir(exist_ok=True)
    head = {"schema": 1, "quick": True, "created_at": "2026-01-01T00:00:00+00:00", "missed": {}, "errors": {}}
    (directory / "lesson.json").write_text(json.dumps({**head, **told}))
    return directory


def add_results(directory: Path, name: str = "resnet18", way: str = "autograd", cuda: bool = False) -> None:
    """What claims 7, 8 and 10 leave as JSON; `name` and `way` stand for what a stranger may have written."""
    places: list[tuple[str, bool | None, float]] = [("cpu", None, 660e6)]
    places += [("cuda", True, 10e6), ("cuda", False, 30e6)] if cuda else []
    times = [
        {"network": name, "device": device, "cudnn": cudnn, "step_ns": ns, "repeats": 1}
        for device, cudnn, ns in places
    ]
    facts = {"threads": 2, "cuda": "made GPU" if cuda else None, "torch": "2.6.0"}
    outcomes = [
        {
            "d_in": 1000,
            "way": one,
            "device": "cpu",
            "losses": [100.0, 3.25],
            "first_iteration_ns": 5e6,
            "iteration_ns": 2e5,
        }
        for one in ("NumPy, gradients by hand", way)
    ]
    outcomes.append(
        {"d_in": 1000, "way": WAYS[2], "device": "cpu", "losses": None, "why": f"no compiler {way}"}
    )
    place = {"tier": "ssd", "keep": None, "workers": 2, "prefetch": 2, "stall": 0.03, "predicted_stall": 0.02}
    slow = {"tier": "hdd", "keep": None, "workers": 4, "stall": None, "predicted_stall": 0.7}
    for file, content in (
        ("7_networks", {"batch": 2, "side": 224, "times": times, **facts}),
        ("8_two_layer", {"outcomes": outcomes, **facts}),
        ("10_tune", {"target": 0.05, "ended": True, "places": [slow, {**place, "trials": 3}]}),
    ):
        (directory / f"{file}.json").write_text(json.dumps(content))
