from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.simulate.predict import Estimate
from pipeprof.simulate.ranking import calibrated


def run(rate: float, idle: float) -> Any:
    return SimpleNamespace(rate=rate, idle=idle, throughput=Estimate(rate, 0.9 * rate, 1.1 * rate))


def test_a_loop_that_waits_no_more_is_as_fast_as_its_steps_allow() -> None:
    """The steps take 4 ms a sample: the run waited for as long again, of which the replay knew a half."""
    measured, replay, without = run(125.0, 0.5), run(1000 / 6, 1 / 3), run(250.0, 0.0)
    calibration = calibrated(replay, replay, measured.rate, measured.idle)
    assert calibration.rate(without).value == pytest.approx(250.0)
    assert calibration.gain(without) == pytest.approx(1.0), "beside the measured rate"
    assert calibration.rate(replay).value == pytest.approx(125.0)
    assert calibration.rate(run(200.0, 0.2)).value == pytest.approx(1000 / (4 + 2 * 1))


def test_what_a_replay_missed_of_the_steps_stays() -> None:
    """The run did not wait longer than its replay: its steps took longer."""
    replay = run(125.0, 0.5)
    calibration = calibrated(replay, replay, 100.0, 0.4)
    assert calibration.rate(run(250.0, 0.0)).value == pytest.approx(1000 / 6)


@pytest.mark.parametrize(
    ("measured", "waited", "replay"),
    [
        (125.0, 0.5, run(126.0, 0.4)),
        (125.0, 0.5, run(250.0, 0.0)),
        (125.0, 0.0, run(100.0, 0.2)),
        (125.0, None, run(100.0, 0.2)),
        (125.0, 0.5, None),
    ],
    ids=["replay as measured", "replay did not wait", "run did not wait", "not observed", "no replay"],
)
def test_without_two_kinds_of_time_the_whole_is_scaled(
    measured: float, waited: float | None, replay: Any
) -> None:
    base, better = run(100.0, 0.5), run(150.0, 0.25)
    calibration = calibrated(base, replay, measured, waited)
    assert calibration.gain(better) == pytest.approx(0.5)
    assert calibration.rate(better).value == pytest.approx(1.5 * measured)
    assert calibration.rate(better).low == pytest.approx(0.9 * 1.5 * measured)


def test_without_a_measured_rate_the_predicted_one_stands() -> None:
    base = run(100.0, 0.5)
    assert calibrated(base, base, None, 0.5).rate(run(150.0, 0.1)).value == 150.0
