"""Checks of what keys mean together, which a type cannot say.

Each check yields problems as data; `load` knows where the key was written and words the message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pipeprof import devices
from pipeprof.devices import is_in_memory
from pipeprof.errors import ScenarioError
from pipeprof.scenario.emulated import storage_model
from pipeprof.scenario.preflight import refusals
from pipeprof.scenario.remote import is_remote, remote_problems
from pipeprof.scenario.schema import Expected, Scenario
from pipeprof.suggest import nearest
from pipeprof.vocabulary import causes, fixes


class Problem(NamedTuple):
    """Problem: something that cannot be meant, at a dotted key."""

    key: str
    problem: str
    remedy: str


def problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield everything in `scenario` that cannot be meant, though each key by itself could."""
    yield from _name(scenario)
    yield from _data(scenario)
    yield from _storage(scenario)
    yield from (Problem(*each) for each in remote_problems(scenario))
    yield from (Problem(*each) for each in refusals(scenario))
    yield from _loader(scenario)
    yield from _model(scenario)
    yield from _accelerator(scenario)
    yield from _run(scenario)
    if scenario.expect is not None:
        yield from _expected("expect", scenario.expect)
        for index, cell in enumerate(scenario.expect.cells):
            yield from _expected(f"expect.cells[{index}]", cell)


def _name(scenario: Scenario) -> Iterator[Problem]:
    if not re.fullmatch(r"[\w][\w.=,+-]*", scenario.name):
        yield Problem(
            "name", f"{scenario.name!r} cannot name a directory", "use letters, digits and any of _ . - = , +"
        )


def _data(scenario: Scenario) -> Iterator[Problem]:
    data = scenario.data
    own = data.format in ("image_folder", "imported")
    if data.format == "image_folder" and data.path is None:
        yield Problem("data.format", "image_folder needs data.path", "name the directory of your images")
    if data.path is not None and not own:
        yield Problem(
            "data.path",
            f"the format {data.format} is made by pipeprof and has no path of yours",
            "set data.format to image_folder, or give storage.path for where to keep made samples",
        )
    elif data.path is not None:
        yield from _directory("data.path", data.path)
    if data.format == "imported" and data.import_ is None:
        yield Problem("data.format", "imported needs data.import", "give package.module:callable")
    if data.import_ is not None:
        yield from _import(data.format, data.import_)
    if own and data.sample_bytes is not None:
        yield Problem(
            "data.sample_bytes", f"the samples of {data.format} have the size they have", "leave it out"
        )


def _import(format_: str, target: str) -> Iterator[Problem]:
    module, _, name = target.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        yield Problem("data.import", f"{target!r} names no callable", "give package.module:callable")
    if format_ != "imported":
        yield Problem("data.import", f"the format {format_} imports nothing", "set data.format to imported")


def _storage(scenario: Scenario) -> Iterator[Problem]:
    storage = scenario.storage
    if storage.keep == "decoded" and not is_in_memory(storage.tier):
        yield Problem("storage.keep", f"{storage.tier} holds files", "decoded needs the tier ram or pinned")
    if storage.profile is not None:
        yield from _file("storage.profile", storage.profile)
    if storage.path is not None:
        yield from _directory("storage.path", storage.path)
    real = "storage.path is real" if storage.path is not None else ""
    real = f"the tier {storage.tier} is real memory" if is_in_memory(storage.tier) else real
    yield from _cache(scenario)
    if real:
        for key in ("device", "figures", "profile"):
            if getattr(storage, key):
                yield Problem(f"storage.{key}", f"{real}, nothing is emulated there", f"leave {key} out")
        return
    yield from _device(scenario)


def _cache(scenario: Scenario) -> Iterator[Problem]:
    storage = scenario.storage
    if storage.cache_bytes is None or (storage.path is not None and is_remote(storage.path)):
        return  # another check reports it for a remote place
    if storage.cache == "warm":
        yield Problem(
            "storage.cache_bytes",
            "limits what stays in memory, and storage.cache: warm holds all of it there",
            "keep one of the two",
        )
    if storage.path is not None and scenario.data.format == "imported":
        yield Problem(
            "storage.cache_bytes",
            "an imported data set opens its files by itself: nothing takes them out of memory",
            "leave it out, or leave storage.path out to emulate the device and its cache",
        )


def _device(scenario: Scenario) -> Iterator[Problem]:
    storage = scenario.storage
    preset = devices.STORAGE.get(storage.device) if storage.device is not None else None
    if storage.device is not None and preset is None:
        yield Problem(
            "storage.device",
            f"no storage device is called {storage.device!r}",
            nearest(storage.device, devices.STORAGE),
        )
        return
    if preset is not None and storage.profile is not None:
        yield Problem("storage.device", "storage.profile says what is emulated", "keep one of the two")
        return
    if preset is not None and preset.tier != storage.tier and preset.kind != "rate-limit":
        same = [name for name, model in devices.STORAGE.items() if model.tier == storage.tier]
        yield Problem(
            "storage.device",
            f"{preset.name} is of the tier {preset.tier}, the scenario says {storage.tier}",
            f"set storage.tier to {preset.tier}, or choose: {', '.join(sorted(same))}",
        )
        return
    unknown = [key for key in storage.figures if key not in devices.FIGURES]
    for key in unknown:
        yield Problem(
            f"storage.figures.{key}", "a storage device has no such figure", nearest(key, devices.FIGURES)
        )
    if not unknown:
        try:
            storage_model(storage)
        except ScenarioError as error:
            yield Problem("storage.figures", error.problem, error.remedy)


def _loader(scenario: Scenario) -> Iterator[Problem]:
    loader, data = scenario.loader, scenario.data
    if loader.workers == 0:
        for key in ("prefetch", "persistent_workers"):
            if getattr(loader, key):
                yield Problem(
                    f"loader.{key}", "needs workers and loader.workers is 0", "leave it out, or add workers"
                )
    if loader.drop_last and loader.batch_size > data.samples:
        yield Problem(
            "loader.batch_size",
            f"is {loader.batch_size} and there are {data.samples} samples: not one full batch",
            "make it smaller, raise data.samples, or set loader.drop_last to false",
        )


def _model(scenario: Scenario) -> Iterator[Problem]:
    model = scenario.model
    if not re.fullmatch(r"[a-z][a-z0-9_]*", model.name):
        plain = re.sub(r"[^a-z0-9_]", "", model.name.lower().replace("-", "_"))
        yield Problem(
            "model.name",
            f"{model.name!r} names no model",
            f"names are lower case, as torchvision's: did you mean {plain}?"
            if plain
            else "for example resnet18",
        )
    elif model.name != "two_layer_net" and get_close_matches(model.name, ["two_layer_net"], cutoff=0.75):
        yield Problem("model.name", f"no model is called {model.name}", "did you mean two_layer_net?")
    if model.weights is not None:
        yield from _file("model.weights", model.weights)


def _accelerator(scenario: Scenario) -> Iterator[Problem]:
    part = scenario.accelerator
    for key, table in (("preset", devices.ACCELERATORS), ("link", devices.LINKS)):
        word = getattr(part, key)
        if word is not None and word not in table:
            yield Problem(f"accelerator.{key}", f"none is called {word!r}", nearest(word, table))
    if part.preset is not None and part.step_ms is not None:
        yield Problem("accelerator.step_ms", "the preset has a step time of its own", "keep one of the two")
    if part.step_spread_ms and part.step_ms is None:
        yield Problem(
            "accelerator.step_spread_ms", "is the spread of step_ms, which is not given", "give step_ms"
        )
    if part.kind not in ("auto", "emulated"):
        for key in ("preset", "step_ms"):
            if getattr(part, key) is not None:
                yield Problem(
                    f"accelerator.{key}",
                    f"the accelerator {part.kind} really computes and takes the time it takes",
                    "leave it out, or set accelerator.kind to emulated",
                )


def _run(scenario: Scenario) -> Iterator[Problem]:
    run = scenario.run
    if run.steps is not None and run.warmup_steps >= run.steps:
        yield Problem(
            "run.warmup_steps",
            f"is {run.warmup_steps} of {run.steps} steps: none is left to measure",
            "give fewer, or more run.steps",
        )


def _expected(key: str, expected: Expected) -> Iterator[Problem]:
    for word in expected.cause:
        if not causes.is_cause(word):
            yield Problem(f"{key}.cause", f"no cause is called {word!r}", nearest(word, causes.SPELLED))
    for word in expected.fix:
        if word not in fixes.BY_WORD:
            yield Problem(f"{key}.fix", f"no fix is called {word!r}", nearest(word, fixes.BY_WORD))
    low, high = expected.min_stall, expected.max_stall
    if low is not None and high is not None and low > high:
        yield Problem(f"{key}.min_stall", f"is {low:g}, above max_stall {high:g}", "exchange them")


def _directory(key: str, path: str) -> Iterator[Problem]:
    if "://" in path:  # a remote place: only measuring can show it
        return
    fault = _unusable(Path(path), directory=True)
    if fault:
        yield Problem(key, f"{path} {fault}", "name a directory that can be read")


def _file(key: str, path: str) -> Iterator[Problem]:
    fault = _unusable(Path(path), directory=False)
    if fault:
        yield Problem(key, f"{path} {fault}", "name a file that can be read")


def _unusable(path: Path, directory: bool) -> str:
    try:
        there, is_directory = path.exists(), path.is_dir()
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if not there:
        return "does not exist"
    if directory != is_directory:
        return "is a directory" if is_directory else "is a file"
    rights = os.R_OK | os.X_OK if directory else os.R_OK
    return "" if os.access(path, rights) else "cannot be read: permission denied"
