"""What a matrix of predictions costs: 60 cells of batches of 64 JPEG images, from one made run.

`taskset -c 0 python -m tests.benchmarks.prediction_cost`. Bound: 10 s for 2,000 batches a cell, on one core,
and cost that grows linearly with the batches.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pipeprof.devices import STORAGE, storage_preset
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.predict import predict
from tests.factory import MS, Plan
from tests.simulate.common import demands_of

BOUND_S, BOUND_BATCHES = 10, 2_000
BATCHES = (1_000, BOUND_BATCHES, 4_000)
LOADERS = ((0, 2), *itertools.product((1, 2, 4), (1, 2, 4)), (8, 2), (8, 4))
"""Workers and prefetch."""
PLACES = (("hdd", 1.0), ("ssd", 1.0), ("ssd", 4.0), ("ram", 1.0), ("ram", 4.0))
"""Tier, and how many times as fast the accelerator is."""
STAGES = {
    "read": 14 * MS,
    "decode": 640 * MS,
    "transform:RandomResizedCrop": 96 * MS,
    "transform:ToTensor": 26 * MS,
    "collate": 5 * MS,
}
"""A batch's work, by LotusTrace's figures of ImageNet (IISWC 2024), scaled to 10 ms of decoding a sample."""


def cells(demands: Demands) -> list[Knobs]:
    """Every loader in every place."""
    return [
        replace(
            demands.measured,
            workers=workers,
            prefetch=prefetch,
            storage=storage_preset(tier),
            accelerator_speed=speed,
        )
        for (workers, prefetch), (tier, speed) in itertools.product(LOADERS, PLACES)
    ]


def cost_s(demands: Demands, asked: list[Knobs], batches: int) -> float:
    """CPU seconds of predicting `asked`."""
    began = time.process_time()
    for knobs in asked:
        predict(demands, knobs, steps=batches, warmup=5)
    return time.process_time() - began


def main() -> None:
    """Print one line a length."""
    plan = Plan(batches=250, batch_size=64, stages=STAGES, jitter=0.1)
    with tempfile.TemporaryDirectory() as folder:
        demands = demands_of(Path(folder) / "run", plan, STORAGE["sata-ssd"])
    asked = cells(demands)
    cost_s(demands, asked, 20)  # imports, and the speed that a core takes up
    for batches in BATCHES:
        took = cost_s(demands, asked, batches)
        bound = BOUND_S * batches / BOUND_BATCHES
        print(
            f"{len(asked)} cells of {batches:,} batches: {took:.1f} s of CPU, {took / bound:.0%} of the bound"
        )


if __name__ == "__main__":
    main()
