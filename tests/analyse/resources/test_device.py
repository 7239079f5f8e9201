"""The state of the device, from made runs: full, with room, or not known, and what is advised then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.resources.device import LIMIT_GIVES, StorageState
from pipeprof.record.added.storage_probe import ProbePoint, StorageProbe, write_probe
from pipeprof.record.reader import load as load_run
from pipeprof.record.writer import TraceWriter
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import change
from tests import factory
from tests.factory import MS, ORIGIN_NS, Plan, S, make_run

READ_MS = 60
DEVICE_BYTES = 32 * 110_000
"""Bytes of a batch of the factory."""
REAL = {"tier": None, "name": None, "emulated": False, "cache": None, "model": None}
DISK = {"name": "vda", "number": "254:0", "rotational": True, "virtual": True}


def plan(**changes: Any) -> Plan:
    """A worker that mostly waits for reads; the accelerator would be six times as fast."""
    stages = {"read": READ_MS * MS, "decode": 10 * MS, "collate": MS}
    asked = {
        "workers": 1,
        "stages": stages,
        "compute": 10 * MS,
        "batch_columns": {"device_bytes": DEVICE_BYTES},
    }
    return Plan(**{**asked, **changes})


def made(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
    sensors: dict[str, float] | None = None,
    **reading: Any,
) -> Analysis:
    """The analysis of a run on real storage, with readings of sensors that stay the same."""
    before = TraceWriter.close

    def close(self: TraceWriter, status: Any) -> None:
        if sensors:
            times = [ORIGIN_NS + n * S // 4 for n in range(80)]
            rows = [(time, name, value) for time in times for name, value in sensors.items()]
            columns = dict(
                zip(("time_ns", "sensor", "value"), map(list, zip(*rows, strict=True)), strict=True)
            )
            self.append("telemetry", columns)
        before(self, status)

    with monkeypatch.context() as patched:
        patched.setattr(factory.TraceWriter, "close", close)
        return load(make_run(directory, plan, storage=REAL, emulated=[], reading=reading))


def state(found: Analysis) -> StorageState:
    assert found.facts is not None and found.facts.device is not None
    return found.facts.device


def rate(plan: Plan) -> float:
    """Bytes a second of a plan that the making of batches limits."""
    making = sum(int(np.mean(np.asarray(ns))) for ns in plan.stages.values())
    return plan.workers * DEVICE_BYTES * S / making


def limit(**figures: int) -> dict[str, Any]:
    return {"io_limits": [{"device": "254:0", "group": "/g", **figures}], "place": {"disks": [DISK]}}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_limit_that_is_reached_is_a_full_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    full = plan(workers=workers)
    limited = limit(read_bytes_per_s=round(rate(full) * 1.02))
    found = made(tmp_path / "run", monkeypatch, full, **limited)
    assert (state(found).state, state(found).basis) == ("full", "limit")
    assert "is full" in found.verdict.sentence
    assert found.verdict.as_dict()["device"]["state"] == "full"
    assert found.verdict.fix != "more-workers"
    forecast = Forecast(found)
    assert "more-workers" not in [one.fix.word for one in forecast.fixes]
    assert forecast.choice.word != "more-workers"
    more = forecast.predictor.predict(change(forecast.predictor.demands.measured, {"loader.workers": "8"}))
    assert more.throughput.value == pytest.approx(found.verdict.measured.throughput_samples_per_s, rel=0.06)
    assert forecast.replay is not None
    assert forecast.replay_error == pytest.approx(0.0, abs=0.02)


def test_a_limit_far_away_is_room_up_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = plan()
    found = made(tmp_path / "run", monkeypatch, quiet, **limit(read_bytes_per_s=round(rate(quiet) * 2.5)))
    assert (state(found).state, state(found).basis) == ("room", "limit")
    assert found.verdict.fix == "more-workers"
    forecast = Forecast(found)
    now = found.verdict.measured.throughput_samples_per_s
    assert now is not None
    asked = forecast.predictor.demands.measured
    two, eight = (
        forecast.predictor.predict(change(asked, {"loader.workers": n})).throughput.value / now for n in "28"
    )
    assert two == pytest.approx(2.0, rel=0.1)
    assert eight == pytest.approx(2.5 * LIMIT_GIVES, rel=0.1), "no more than the limit gives"


def test_of_equal_gains_more_readers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = plan(compute=36 * MS)  # two workers are enough
    found = made(tmp_path / "run", monkeypatch, quick, **limit(read_bytes_per_s=round(rate(quick) * 2.5)))
    assert Forecast(found).choice.word == "more-workers"


def test_a_limit_on_another_disk_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = plan()
    limited = limit(read_bytes_per_s=round(rate(full)))
    limited["place"] = {"disks": [{**DISK, "number": "8:0"}]}
    found = made(tmp_path / "run", monkeypatch, full, **limited)
    assert state(found).state == "not-known"


def test_where_it_is_not_known_the_interval_holds_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(tmp_path / "run", monkeypatch, plan())
    assert state(found).state == "not-known"
    assert "not known" in found.verdict.sentence
    assert found.verdict.fix != "more-workers"
    forecast = Forecast(found)
    assert forecast.choice.word != "more-workers"
    now = found.verdict.measured.throughput_samples_per_s
    assert now is not None
    more = forecast.predictor.predict(change(forecast.predictor.demands.measured, {"loader.workers": "4"}))
    assert more.throughput.value == pytest.approx(now, rel=0.06), "the lower end stands"
    assert more.throughput.low < now < 3.5 * now < more.throughput.high
    assert any("--probe" in str(each) for each in more.extrapolations)


def test_work_that_hardly_waits_for_reads_is_predicted_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = plan(stages={"read": 4 * MS, "decode": 60 * MS, "collate": MS})
    found = made(tmp_path / "run", monkeypatch, busy)
    assert state(found).state == "not-known"
    forecast = Forecast(found)
    assert forecast.choice.word == "more-workers"
    now = found.verdict.measured.throughput_samples_per_s
    more = forecast.predictor.predict(change(forecast.predictor.demands.measured, {"loader.workers": "4"}))
    assert now is not None
    assert more.throughput.value == pytest.approx(4 * now, rel=0.1)


def test_memory_that_served_the_reads_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(tmp_path / "run", monkeypatch, plan(batch_columns={"device_bytes": 0}))
    assert (state(found).state, state(found).basis) == ("room", "memory")


def test_reads_held_back_above_the_disk_say_that_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = {"device.reads_per_s": 100.0, "device.reads_in_flight": 0.05}
    found = made(tmp_path / "run", monkeypatch, plan(), sensors)
    assert (state(found).state, state(found).basis) == ("full", "held-back")
    own_queue = made(tmp_path / "own", monkeypatch, plan(), {**sensors, "device.reads_in_flight": 0.9})
    assert state(own_queue).state == "not-known"
    assert state(own_queue).service_ns == pytest.approx(9 * MS, rel=0.01)


def test_a_rotating_disk_that_is_always_busy_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"disks": [{**DISK, "virtual": False}], "tier": "hdd"}
    sensors = {"device.reads_per_s": 80.0, "device.reads_in_flight": 1.0, "device.busy": 0.97}
    found = made(tmp_path / "run", monkeypatch, plan(), sensors, place=place)
    assert (state(found).state, state(found).basis) == ("full", "busy-disk")


def test_an_ssd_with_a_short_queue_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"disks": [{**DISK, "rotational": False, "virtual": False}], "tier": "ssd"}
    sensors = {"device.reads_per_s": 80.0, "device.reads_in_flight": 0.9, "device.busy": 0.97}
    found = made(tmp_path / "run", monkeypatch, plan(), sensors, place=place)
    assert (state(found).state, state(found).basis) == ("room", "short-queue")
    virtual = {"disks": [{**place["disks"][0], "virtual": True}]}  # type: ignore[dict-item]
    assert state(made(tmp_path / "virtual", monkeypatch, plan(), sensors, place=virtual)).state == "not-known"


def curve(*rates: float, paused: float = 0.0) -> StorageProbe:
    """A probe with so many bytes a second by 1, 2, 4, ... readers."""
    points = [ProbePoint(2**n, 100, rate, rate) for n, rate in enumerate(rates)]
    return StorageProbe(
        "whole", 65536, 10, (*points, ProbePoint(1, 100, paused, paused, paused=True)), 4.0, 10
    )


@pytest.mark.parametrize("kept", [0.5, 1.0])
def test_a_flat_curve_is_a_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: float) -> None:
    full = plan(stages={"read": READ_MS * MS, "collate": MS})
    now = rate(full)
    directory = tmp_path / "run"
    made(directory, monkeypatch, full)
    write_probe(directory, curve(now, 1.03 * now, 1.01 * now, paused=kept * now))
    found = load(directory)
    assert (state(found).state, state(found).basis) == ("full", "probe")
    forecast = Forecast(found)
    asked = forecast.predictor.demands.measured
    four = forecast.predictor.predict(change(asked, {"loader.workers": "4"})).throughput.value
    assert four == pytest.approx(found.verdict.measured.throughput_samples_per_s, rel=0.08)
    assert "more-workers" not in [one.fix.word for one in forecast.fixes]


@pytest.mark.parametrize("of", ["bytes", "reads"])
def test_a_probe_finds_no_more_than_is_allowed(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its short points the best held what the limit had saved up, a third more than it allows."""
    full = plan(stages={"read": READ_MS * MS, "collate": MS})
    now, directory = rate(full), tmp_path / "run"
    figures = {"read_bytes_per_s": round(1.05 * now)} if of == "bytes" else {"read_requests_per_s": 105}
    sensors = {"group.reads_per_s": 100.0, "group.read_bytes_per_s": now}
    made(directory, monkeypatch, full, sensors, **limit(**figures))
    write_probe(directory, curve(1.2 * now, 1.35 * now, 1.1 * now, paused=1.1 * now))
    found = load(directory)
    assert (state(found).state, state(found).basis) == ("full", "probe")
    assert "more-workers" not in [one.fix.word for one in Forecast(found).fixes]


def test_points_of_few_reads_are_as_good_as_a_better_one() -> None:
    few = StorageProbe(points=tuple(ProbePoint(n, 10, rate) for n, rate in ((1, 100), (2, 129), (4, 105))))
    many = StorageProbe(points=tuple(ProbePoint(n, 999, rate) for n, rate in ((1, 100), (2, 129), (4, 112))))
    assert few.most(of_device=False) == pytest.approx((100 + 129 + 105) / 3)
    assert many.most(of_device=False) == pytest.approx((129 + 112) / 2)


def test_a_rising_curve_is_room_and_is_predicted_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan(stages={"read": READ_MS * MS, "collate": MS})
    now = rate(alone)
    directory = tmp_path / "run"
    made(directory, monkeypatch, alone)
    write_probe(directory, curve(now, 2 * now, 3 * now, 3 * now, 3 * now, paused=now / 2))
    found = load(directory)
    assert (state(found).state, state(found).basis) == ("room", "probe")
    assert found.verdict.fix == "more-workers"
    forecast = Forecast(found)
    asked = forecast.predictor.demands.measured
    measured = found.verdict.measured.throughput_samples_per_s
    assert measured is not None
    for workers, factor in (("1", 1.0), ("2", 2.0), ("4", 3.0), ("8", 3.0)):
        one = forecast.predictor.predict(change(asked, {"loader.workers": workers}))
        assert one.throughput.value / measured == pytest.approx(factor, rel=0.12), workers


def test_a_damaged_probe_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "run"
    made(directory, monkeypatch, plan())
    points = ('{"readers": 1, "bytes_per_s": -5.0}, {"readers": 0}', '{"readers": 1, "paused": true}')
    of_no_reader = [f'{{"schema": 1, "points": [{each}]}}' for each in points]
    for text in ("", "[]", '{"schema": 1}', '{"schema": 9, "points": [{"readers": 1}]}', *of_no_reader):
        (directory / "storage_probe.json").write_text(text)
        assert state(load(directory)).state == "not-known"


def test_a_mapped_file_on_a_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read is seen: page faults of unnamed code wait for the device."""
    monkeypatch.setattr(factory, "_reads", lambda name: name == "getitem")  # it takes no core
    mapped = plan(
        stages={"getitem": 60 * MS, "collate": MS},
        batch_columns={"device_bytes": DEVICE_BYTES, "major_faults": 32},
    )
    limited = limit(read_bytes_per_s=round(rate(mapped)))
    found = made(tmp_path / "run", monkeypatch, mapped, **limited)
    assert load_run(tmp_path / "run").meta.reading.io_limits
    assert state(found).state == "full"
    assert found.verdict.cause == "storage-bandwidth"
    forecast = Forecast(found)
    assert forecast.choice.word in ("ram", "faster-storage")
    asked = forecast.predictor.demands.measured
    four = forecast.predictor.predict(change(asked, {"loader.workers": "4"})).throughput.value
    assert four == pytest.approx(found.verdict.measured.throughput_samples_per_s, rel=0.06)
