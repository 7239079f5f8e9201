"""Telemetry: sensors that work, fail and are not there; none of it ends a run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import pipeprof
from pipeprof.errors import MeasureError
from pipeprof.measure.host.sensors.contract import Plain
from pipeprof.measure.host.sensors.registry import GROUPS
from pipeprof.measure.host.telemetry import Telemetry
from pipeprof.record.meta import RunMeta, TelemetryMeta
from pipeprof.record.reader import load

Rows = list[tuple[int, str, float]]


class Sink:
    def __init__(self) -> None:
        self.rows: Rows = []

    def __call__(self, time_ns: int, values: Mapping[str, float]) -> None:
        self.rows += [(time_ns, name, value) for name, value in values.items()]


class Failing(Plain):
    """Works twice, then fails for good."""

    def __init__(self) -> None:
        super().__init__(lambda: {"flaky": 1.0})
        self.left, self.closed = 2, False

    def read(self) -> dict[str, float]:
        self.left -= 1
        if self.left < 0:
            raise OSError("sensor unplugged")
        return super().read()

    def close(self) -> None:
        self.closed = True


def test_a_failing_sensor_is_not_observed_once_and_the_others_go_on() -> None:
    flaky, sink, clock = Failing(), Sink(), iter(range(100, 200))
    telemetry = Telemetry(
        sink, {"flaky": flaky, "steady": Plain(lambda: {"steady": 7.0})}, clock=lambda: next(clock)
    )
    telemetry.open()
    for _ in range(5):
        telemetry.sample()
    assert [name for _, name, _ in sink.rows].count("flaky") == 2
    assert [name for _, name, _ in sink.rows].count("steady") == 5
    assert telemetry.not_observed == {"flaky": "OSError: sensor unplugged"}
    assert flaky.closed


def test_the_thread_samples_at_its_rate_and_ends_with_the_block() -> None:
    sink = Sink()
    with Telemetry(sink, {"steady": Plain(lambda: {"steady": 1.0})}, rate_hz=50):
        deadline = time.monotonic() + 5
        while len(sink.rows) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(sink.rows)
    assert count >= 3
    time.sleep(0.06)
    assert len(sink.rows) == count


class FailingToClose(Failing):
    def close(self) -> None:
        raise OSError("the driver is gone")


def test_a_sensor_that_cannot_be_closed_ends_neither_the_others_nor_the_run() -> None:
    sink = Sink()
    sensors = {"lost": FailingToClose(), "steady": Plain(lambda: {"steady": 7.0})}
    with Telemetry(sink, sensors, rate_hz=100):
        deadline = time.monotonic() + 5
        while [name for _, name, _ in sink.rows].count("steady") < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [name for _, name, _ in sink.rows].count("steady") >= 5
    with Telemetry(Sink(), {"whole": FailingToClose()}, rate_hz=1):
        pass


def test_a_sensor_that_hangs_does_not_hang_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeprof.measure.host.telemetry.JOIN_S", 0.05)
    asked, answer = threading.Event(), threading.Event()

    def hang() -> dict[str, float]:
        asked.set()
        answer.wait()
        return {}

    telemetry = Telemetry(Sink(), {"steady": Plain(lambda: {"steady": 7.0}), "gpu": Plain(hang)}, rate_hz=1)
    with telemetry:
        assert asked.wait(5)
    assert telemetry.not_observed == {"gpu": "did not answer when the run ended"}
    answer.set()
    assert telemetry._thread is not None
    telemetry._thread.join()


def test_turned_off_it_reads_nothing_and_says_so() -> None:
    sink = Sink()
    with Telemetry(sink, rate_hz=0) as telemetry:
        assert "pipeprof-telemetry" not in [thread.name for thread in threading.enumerate()]
    assert sink.rows == []
    meta = telemetry.entered(RunMeta(not_observed=("something",)))
    assert meta.telemetry == TelemetryMeta(rate_hz=0, cpu_ns=0)
    assert meta.not_observed == ("something", f"{', '.join(GROUPS)}: telemetry is turned off")


def test_a_forked_process_leaves_the_block_without_closing_what_is_the_parents() -> None:
    flaky = Failing()
    with Telemetry(Sink(), {"flaky": flaky}, rate_hz=1) as telemetry:
        pid = os.fork()
        if pid == 0:
            telemetry.__exit__()
            os._exit(int(flaky.closed))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert flaky.closed


@pytest.mark.parametrize("rate", [0.0, 50.0])
def test_the_wrapper_reads_sensors_on_request(rate: float, tmp_path: Path) -> None:
    def slowly() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.02)
            yield number

    with pipeprof.profile(slowly(), out=tmp_path / "run", telemetry_hz=rate) as numbers:
        assert list(numbers) == list(range(10))
    run = load(tmp_path / "run")
    seen = run.table("telemetry")["sensor"].to_pylist()
    assert ("memory.used_bytes" in seen) == (rate > 0)
    assert (run.meta.telemetry.rate_hz or 0.0) == rate


def test_the_wrapper_refuses_a_rate_that_cannot_be_before_it_writes(tmp_path: Path) -> None:
    for rate in (-1.0, 101.0, float("nan")):
        with (
            pytest.raises(MeasureError, match="telemetry_hz is"),
            pipeprof.profile([1], out=tmp_path / "run", telemetry_hz=rate),
        ):
            pass
    assert not list(tmp_path.iterdir())
