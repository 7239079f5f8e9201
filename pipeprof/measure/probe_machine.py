"""Measures the rest of the way from disk to device: memory, the link to the accelerator, decoding."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np

from pipeprof.measure.datasets import decode_image
from pipeprof.measure.synthetic import image_recipe

_COPY_BYTES: Final = 256 * 2**20
_LINK_BYTES: Final = (2**20, 16 * 2**20, 256 * 2**20)
_IMAGES: Final = 32
_ROUNDS: Final = 5


def memory_rate() -> dict[str, Any]:
    """How fast one core copies memory: bytes copied, each of them read once and written once."""
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    return {"copy_bytes_per_s": _COPY_BYTES * 1e9 / _median_ns(lambda: np.copyto(target, source))}


def decode_rate() -> dict[str, Any]:
    """How fast one core decodes pipeprof's own JPEGs, which are like ImageNet's in size and cost."""
    recipe = image_recipe(0, None)
    images = [recipe.encode(index) for index in range(_IMAGES)]

    def decode() -> None:
        for image in images:
            decode_image(io.BytesIO(image))

    decode_ns = _median_ns(decode) / _IMAGES
    return {
        "images_per_s_per_core": 1e9 / decode_ns,
        "ns_per_image": decode_ns,
        "mean_bytes": sum(map(len, images)) / _IMAGES,
    }


def link_rates() -> list[dict[str, Any]] | None:
    """Host to device by size, from pageable and from pinned memory; None where there is no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return None
    return [_link(torch, size) for size in _LINK_BYTES]


def _link(torch: Any, size: int) -> dict[str, Any]:
    host = torch.ones(size, dtype=torch.uint8)
    device = torch.empty(size, dtype=torch.uint8, device="cuda")

    def rate(source: Any) -> float:
        def copy() -> None:
            device.copy_(source, non_blocking=True)
            torch.cuda.synchronize()

        return size * 1e9 / _median_ns(copy)

    return {
        "size_bytes": size,
        "pageable_bytes_per_s": rate(host),
        "pinned_bytes_per_s": rate(host.pin_memory()),
    }


def _median_ns(work: Callable[[], Any]) -> float:
    work()  # the first time brings pages and code in
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return median(times)
