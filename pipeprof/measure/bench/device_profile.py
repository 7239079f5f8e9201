"""Measures the whole way from disk to device: the body of a device profile."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pipeprof.devices.survey import DecodeRate, Survey
from pipeprof.measure.data.datasets import decode_image
from pipeprof.measure.data.synthetic import image_recipe
from pipeprof.measure.host.survey import survey_places
from pipeprof.measure.host.survey_disk import measure_place
from pipeprof.measure.host.survey_machine import link_rates, median_ns, memory_rate
from pipeprof.units import NS_PER_S

_IMAGES: Final = 32


def measure_devices(paths: Sequence[Path], seconds: float, say: Callable[[str], None]) -> Survey:
    """Measure the devices under `paths`, memory, decoding and the link to the accelerator.

    `seconds` is how long each of a path's 18 points is read; `say` is called with what is being measured.
    Raises `MeasureError` if a path cannot be measured.
    """
    profile = survey_places(paths)
    profile["tiers"] = [measure_place(path, seconds, say) for path in paths]
    say("memory")
    profile["memory"] = memory_rate()
    say("decode")
    profile["decode"] = decode_rate()
    say("host to device")
    profile["link"] = link_rates()
    profile["not_observed"] = [] if profile["link"] else ["link: torch sees no device"]
    return profile


def decode_rate() -> DecodeRate:
    """Measure how fast one core decodes pipeprof's own JPEGs, which are like ImageNet's in size and cost."""
    recipe = image_recipe(0, None)
    images = [recipe.encode(index) for index in range(_IMAGES)]

    def decode() -> None:
        for image in images:
            decode_image(io.BytesIO(image))

    decode_ns = median_ns(decode) / _IMAGES
    return {
        "images_per_s_per_core": NS_PER_S / decode_ns,
        "ns_per_image": decode_ns,
        "mean_bytes": sum(map(len, images)) / _IMAGES,
    }
