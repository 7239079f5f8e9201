"""Properties of the sets that pipeprof makes, known before they are made: checks can reckon with them."""

from __future__ import annotations

import math
from typing import Final

CLASSES: Final = 10
"""Labels of a made set: few enough for any network's outputs."""
LARGEST_IMAGE_BYTES: Final = 50_000_000
"""Larger images pass 89 million pixels, at which Pillow suspects a decompression bomb."""
SMALLEST_IMAGE_BYTES: Final = 1_000
"""A JPEG file of 32 x 32 pixels is hardly smaller at the lowest quality."""
_SHARD_SAMPLES, _SHARDS = 128, 16
"""Samples of a shard, fewer if there would be fewer than that many shards for the workers to share."""
_SMALLEST_SIDE: Final = 32
"""Smallest side of a tensor that is an image; smaller ones are rows of numbers."""


def tensor_shape(sample_bytes: int | None, crop: int) -> tuple[int, ...]:
    """Return the shape of a float32 sample of that many bytes without its file's header; by default what a
    crop becomes."""
    values = max(1, (sample_bytes or 3 * crop * crop * 4) // 4)
    side = math.isqrt(values // 3)
    return (values,) if side < _SMALLEST_SIDE else (3, side, values // 3 // side)


def shard_samples(samples: int) -> int:
    """Return the samples in each shard of a set, except for the last."""
    return min(_SHARD_SAMPLES, -(-samples // _SHARDS))


def largest_share(samples: int, workers: int) -> int:
    """Return the samples of the worker that reads the most, if the workers take the shards in turn."""
    each, parts = shard_samples(samples), max(1, workers)
    shards = -(-samples // each)
    full = -(-shards // parts) * each
    # The last shard may be smaller; its worker has the most only if no other has as many shards.
    return full - (shards * each - samples) if shards % parts == 1 or parts == 1 else full
