"""What the sets that pipeprof makes are like, known before they are made: checks can reckon with it."""

from __future__ import annotations

from typing import Final

CLASSES: Final = 10
"""Labels of a made set: few enough for any network's outputs."""
LARGEST_IMAGE_BYTES: Final = 50_000_000
"""Larger images pass 89 million pixels, at which Pillow suspects a decompression bomb."""
SMALLEST_IMAGE_BYTES: Final = 1_000
"""A JPEG file of 32 x 32 pixels is hardly smaller at the lowest quality."""
_SHARD_SAMPLES, _SHARDS = 128, 16
"""Samples of a shard, fewer where there would be fewer than so many shards for the workers to share."""


def shard_samples(samples: int) -> int:
    """Samples in each shard of a set, but for the last."""
    return min(_SHARD_SAMPLES, -(-samples // _SHARDS))


def largest_share(samples: int, workers: int) -> int:
    """Samples of the worker that reads the most, where the workers take the shards in turn."""
    each, parts = shard_samples(samples), max(1, workers)
    shards = -(-samples // each)
    full = -(-shards // parts) * each
    # The last shard may be smaller; its worker has the most only where no other has as many shards.
    return full - (shards * each - samples) if shards % parts == 1 or parts == 1 else full
