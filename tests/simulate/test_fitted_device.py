"""A learned device's model is fitted to its run: a replay on a limited disk takes as long as the run did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeprof.analyse.analysis import load
from pipeprof.devices import StorageModel
from pipeprof.simulate.demands.fitted_device import MOST
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import change
from pipeprof.simulate.predict import replay
from pipeprof.simulate.uncertainty import device_error
from tests.factory import MS, SAMPLE_BYTES, Plan, make_run
from tests.simulate.common import demands_from

BATCH_BYTES = 32 * SAMPLE_BYTES
RATE = 20 * BATCH_BYTES
"""Bytes a second that the disk's limit allows: twenty batches."""
LIMITED = StorageModel(
    "limited", "ssd", "rate-limit", bandwidth_bytes_per_s=RATE, latency_ns=300_000, burst_s=0.1
)
DISK = {"name": "vda", "number": "254:0", "rotational": False, "virtual": True}


def run(directory: Path, allowed: float = RATE, **changes: Any) -> Path:
    """A short run on that disk, whose first reads find what the limit had saved up."""
    asked = {
        "batches": 40, "warmup": 0, "workers": 2, "disk": LIMITED, "compute": 5 * MS,
        "stages": {"read": 0, "decode": 8 * MS, "collate": MS},
        "batch_columns": {"device_bytes": BATCH_BYTES},
    }  # fmt: skip
    limit = {"device": "254:0", "group": "/g", "read_bytes_per_s": round(allowed)}
    return make_run(
        directory,
        Plan(**{**asked, **changes}),
        storage={"tier": None, "name": None, "emulated": False, "cache": None, "model": None},
        emulated=[],
        reading={"io_limits": [limit], "place": {"disks": [DISK]}},
    )


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_replay_on_a_full_disk_takes_as_long_as_the_run(workers: int, tmp_path: Path) -> None:
    found = load(run(tmp_path / "run", workers=workers))
    forecast = Forecast(found)
    assert forecast.replay_error == pytest.approx(0.0, abs=0.02)
    now = found.verdict.measured.throughput_samples_per_s
    assert now is not None
    unfitted = replay(demands_from(found.run)).throughput.value
    assert unfitted > 1.02 * now, "the rate of the run holds what had been saved up before"
    model = forecast.predictor.demands.measured.storage
    assert model.bandwidth_bytes_per_s == pytest.approx(RATE, rel=0.04)


def test_of_a_disk_with_room_the_limit_stays(tmp_path: Path) -> None:
    """Its limit is known: only the time of a request is fitted."""
    found = load(run(tmp_path / "run", allowed=3 * RATE))
    demands = Forecast(found).predictor.demands
    before = demands_from(found.run).measured.storage
    assert demands.measured.storage.bandwidth_bytes_per_s == before.bandwidth_bytes_per_s
    assert Forecast(found).replay_error == pytest.approx(0.0, abs=0.02)


def test_what_the_device_does_not_explain_is_left(tmp_path: Path) -> None:
    """A loop that the accelerator limits says nothing of its disk."""
    found = load(run(tmp_path / "run", compute=200 * MS, batches=60))
    fitted, before = Forecast(found).predictor.demands, demands_from(found.run)
    assert fitted.measured.storage == before.measured.storage


def test_a_fit_is_bounded(tmp_path: Path) -> None:
    found = load(run(tmp_path / "run"))
    demands = Forecast(found).predictor.demands
    before = demands_from(found.run).measured.storage.bandwidth_bytes_per_s
    assert 0.999 / 2.718281828**MOST <= demands.measured.storage.bandwidth_bytes_per_s / before <= 1.26
    more = change(demands.measured, {"loader.workers": "8"})
    rate = Forecast(found).predictor.predict(more).throughput
    assert rate.low <= RATE / SAMPLE_BYTES <= rate.high


def test_what_was_saved_up_counts_in_the_interval_of_a_short_run(tmp_path: Path) -> None:
    """A limit makes up for a tenth of a second: of two seconds that is five percent."""
    forecast = Forecast(load(run(tmp_path / "run", workers=1)))
    base = forecast.predictor.base().throughput
    assert 1 - base.low / base.value == pytest.approx(0.055, abs=0.015)


def test_batches_that_ask_for_unlike_bytes_widen_the_interval(tmp_path: Path) -> None:
    """As of a mapped file, of which memory holds more and more."""
    demands = Forecast(load(run(tmp_path / "run", workers=1))).predictor.demands
    alike = device_error(demands, demands.measured)
    unlike = demands.batches.read_bytes * np.linspace(0.5, 1.5, len(demands.batches))
    varied = replace(demands, batches=replace(demands.batches, read_bytes=unlike))
    sampling = 1.645 * 0.29 * (2 / 40) ** 0.5
    assert device_error(varied, varied.measured) == pytest.approx((alike**2 + sampling**2) ** 0.5, rel=0.05)
