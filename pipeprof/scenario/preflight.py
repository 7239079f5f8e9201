"""Checks of a scenario's text for what `run` would refuse, made when the scenario is validated.

What only the machine can show (a device, room on a disk, a module to import, the sizes of image that a
network takes) is left to `run`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeprof.devices import is_in_memory
from pipeprof.scenario.schema import Scenario
from pipeprof.scenario.synthetic_limits import (
    CLASSES,
    LARGEST_IMAGE_BYTES,
    SMALLEST_IMAGE_BYTES,
    largest_share,
    tensor_shape,
)

_IMAGES = ("jpeg_folder", "tar_shards")
_MADE = (*_IMAGES, "tensor_files")
_LARGEST_SEED = 2**64 - 1
"""Largest seed that torch takes."""

Refusal = tuple[str, str, str]


def refusals(scenario: Scenario) -> Iterator[Refusal]:
    """Yield key, problem and remedy of each."""
    yield from _memory(scenario)
    yield from _sizes(scenario)
    yield from _shards(scenario)
    if scenario.accelerator.kind not in ("auto", "emulated") and scenario.model.name != "two_layer_net":
        yield from _training(scenario)
    if scenario.run.seed > _LARGEST_SEED:
        yield "run.seed", f"is {scenario.run.seed}", f"give at most {_LARGEST_SEED}"


def _memory(scenario: Scenario) -> Iterator[Refusal]:
    data, storage = scenario.data, scenario.storage
    if not is_in_memory(storage.tier):
        return
    if data.format == "imported":
        yield (
            "storage.tier",
            f"is {storage.tier}, and an imported data set loads its own data",
            "load it into memory in your callable, and choose another storage.tier",
        )
    elif storage.keep == "decoded" and data.format == "tar_shards":
        yield (
            "storage.keep",
            "is decoded, and tar_shards are read as files",
            "use data.format jpeg_folder, or keep encoded",
        )


def _sizes(scenario: Scenario) -> Iterator[Refusal]:
    size = scenario.data.sample_bytes
    if size is None or scenario.data.format not in _IMAGES:
        return
    key, other = "data.sample_bytes", "or use format tensor_files"
    if size > LARGEST_IMAGE_BYTES:
        yield (
            key,
            f"is {size}: an image of that size is refused by its decoder",
            f"give 50 MB or less, {other}",
        )
    if size < SMALLEST_IMAGE_BYTES:
        yield key, f"is {size}: no JPEG image of its kind is that small", f"give 1 KB or more, {other}"


def _shards(scenario: Scenario) -> Iterator[Refusal]:
    data, loader = scenario.data, scenario.loader
    if data.format != "tar_shards" or not loader.drop_last or loader.batch_size > data.samples:
        return  # another check reports more than there are samples
    most = largest_share(data.samples, loader.workers)
    if most < loader.batch_size:
        yield (
            "loader.batch_size",
            f"is {loader.batch_size}, and no worker has more than {most} samples: not one full batch",
            "make it smaller, use fewer workers, raise data.samples, or set loader.drop_last to false",
        )


def _training(scenario: Scenario) -> Iterator[Refusal]:
    data, model = scenario.data, scenario.model
    shape = tensor_shape(data.sample_bytes, data.crop)
    if data.format == "tensor_files" and len(shape) == 1:
        yield (
            "model.name",
            f"{model.name} takes images, and tensor_files of {shape[0]} numbers are none",
            "use two_layer_net, data.format jpeg_folder, or a larger data.sample_bytes",
        )
    labels = min(CLASSES, data.samples)
    if data.format in _MADE and model.classes < labels:
        yield (
            "model.classes",
            f"is {model.classes}, and the samples have {labels} classes",
            f"give {labels} or more",
        )
