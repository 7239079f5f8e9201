"""What a run shows while it lasts, and how its errors are worded; no clock but the test's."""

from __future__ import annotations

import errno
import io
import signal
import threading

import pytest
from rich.console import Console

from pipeprof.errors import DataError, MeasureError, TraceError
from pipeprof.measure.bench import failure, run
from pipeprof.measure.bench import run_display as live
from pipeprof.measure.bench.failure import lost_worker, translated
from pipeprof.measure.bench.run_display import WINDOW_S, Progress, RecentRates, line
from pipeprof.measure.bench.signals import Stopped, stoppable


def test_rates_are_those_of_the_last_seconds() -> None:
    now = 100.0
    progress = Progress("short", 1000, None)
    window = RecentRates(progress, clock=lambda: now)
    assert window.view().samples_per_s is None
    for second in range(1, 31):
        now += 1
        rate = 10 if second <= 20 else 50
        progress.steps += rate
        progress.samples += 4 * rate
        progress.busy_ns += 800_000_000
        progress.wait_ns += 100_000_000
        view = window.view()
    assert WINDOW_S < 10
    assert view.samples_per_s == pytest.approx(200)
    assert view.busy == pytest.approx(0.8)
    assert view.stall == pytest.approx(0.1)


def test_a_plain_line_says_how_far_and_how_well() -> None:
    now = 0.0
    progress = Progress("ssd_4workers", 200, None)
    window = RecentRates(progress, clock=lambda: now)
    window.view()
    now, progress.steps, progress.samples = 2.0, 50, 400
    progress.busy_ns, progress.wait_ns, progress.ready = 1_900_000_000, 100_000_000, 8
    assert line("ssd_4workers", window.view()) == (
        "ssd_4workers  step 50  200 samples/s  busy 95%  waiting for data 5.0%  8 batches ready  25% done"
    )


def test_without_a_terminal_there_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LINE_EVERY_S", 0.001)
    said, printed = io.StringIO(), threading.Event()
    monkeypatch.setattr(said, "write", lambda text, write=said.write: (write(text), printed.set())[0])
    with live.shown(Progress("ssd_4workers", 200, None), Console(file=said)):
        assert printed.wait(20)
    assert said.getvalue().startswith("ssd_4workers  step 0")
    assert "\x1b" not in said.getvalue()


def test_the_share_done_is_that_of_the_nearer_limit() -> None:
    progress = Progress("short", 100, 10.0)
    progress.steps, progress.elapsed_s = 20, 9.0
    assert progress.done == 0.9
    assert Progress("epochs", None, None).done is None


def test_foreign_errors_are_worded_for_the_user() -> None:
    killed = translated(RuntimeError("DataLoader worker (pid 42) is killed by signal: Killed. "))
    assert isinstance(killed, MeasureError)
    assert killed.problem == "a loader worker (process 42) is killed by signal: Killed"
    left = RuntimeError("DataLoader worker (pid(s) 4, 5) exited unexpectedly")
    assert lost_worker(left) == "a loader worker (process 4, 5) exited unexpectedly"
    assert isinstance(translated(OSError(errno.ENOSPC, "No space left on device")), TraceError)
    assert "ValueError: odd" in str(translated(ValueError("odd")))
    assert lost_worker(ValueError("odd")) is None


def test_our_own_errors_and_ctrl_c_stay_what_they_are() -> None:
    ours, stopped = DataError("missing"), KeyboardInterrupt()
    assert translated(ours) is ours
    assert translated(stopped) is stopped


def test_a_signal_asks_first_and_breaks_off_when_it_comes_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    steps = 0
    with pytest.raises(Stopped), stoppable() as stop:
        for _ in range(5):
            if steps == 2:
                signal.raise_signal(signal.SIGTERM)
            if stop.requested:
                break
            steps += 1
    assert steps == 2
    went_on = False
    with pytest.raises(Stopped), stoppable():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        went_on = True
    assert not went_on
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_after_a_signal_is_its_consequence() -> None:
    with pytest.raises(Stopped) as ended, stoppable():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("DataLoader worker (pid 42) exited unexpectedly")
    assert isinstance(ended.value.__cause__, RuntimeError)


def test_torch_may_tell_of_a_lost_worker_while_we_look_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> list[int]:
        raise RuntimeError("DataLoader worker (pid 42) is killed by signal: Killed. ")

    monkeypatch.setattr(failure, "dead_children", told)
    explained = run._explained(ConnectionResetError())
    assert isinstance(explained, MeasureError)
    assert explained.problem == "a loader worker (process 42) is killed by signal: Killed"
