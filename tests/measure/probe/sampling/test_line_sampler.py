"""A sample stands for the time since the last one, however late it came; the thread keeps to its budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pipeprof.measure.probe.sampling.call_tree import CallTree
from pipeprof.measure.probe.sampling.line_sampler import (
    BUDGET,
    HZ,
    MOST_NS,
    SHORT_NS,
    LineSampler,
    is_ours,
)

MS = 1_000_000


class HandedTime(LineSampler):
    """Is told what the sampled thread has used."""

    used_ns = queue_ns = 0

    def _cpu_ns(self) -> int:
        return self.used_ns

    def _runq_ns(self) -> int:
        return self.queue_ns


def sampler(stage: Callable[[], str | None] = lambda: "collate", cpu: bool = False) -> HandedTime:
    made = HandedTime(
        threading.get_ident(),
        stage,
        lambda tree: None,
        lambda code: code.co_name.startswith("test_"),
        cpu_is_sampled=lambda: cpu,
    )
    made._last_ns = 0
    return made


def taken(tree: CallTree) -> tuple[int, int, int]:
    _, samples = tree.take()
    return (
        sum(each.samples for each in samples),
        sum(each.wall_ns for each in samples),
        sum(each.cpu_ns for each in samples),
    )


def test_a_late_sample_stands_for_all_the_time_since_the_last() -> None:
    made = sampler()
    made._sample(20 * MS)
    made.used_ns = 60 * MS
    made._sample(80 * MS)
    assert taken(made.tree) == (2, 80 * MS, 60 * MS)


def test_after_a_standstill_no_sample_stands_for_more_than_a_second() -> None:
    made = sampler()
    made._sample(3_600 * 1000 * MS)
    assert taken(made.tree)[:2] == (1, MOST_NS)


def test_time_on_the_cpu_is_left_to_the_timer_where_there_is_one() -> None:
    made = sampler(cpu=True)
    made.used_ns = 15 * MS
    made._sample(20 * MS)
    assert taken(made.tree) == (1, 5 * MS, 0)
    made.used_ns = 40 * MS
    made._sample(45 * MS)
    assert taken(made.tree) == (0, 0, 0), "it computed all the time"


def test_waiting_for_a_core_is_no_wait_at_a_line() -> None:
    """A thread that computes waits for a core wherever it is, and lets go of the GIL elsewhere."""
    told: list[int] = []
    made = sampler(cpu=True)
    made._queued = told.append
    made.used_ns, made.queue_ns = 8 * MS, 12 * MS
    made._sample(20 * MS)
    assert (taken(made.tree), told) == ((0, 0, 0), [12 * MS])
    made.used_ns, made.queue_ns = 10 * MS, 20 * MS
    made._sample(45 * MS)
    assert (taken(made.tree), told) == ((1, 15 * MS, 0), [12 * MS, 8 * MS])


def test_the_kernels_clock_of_waiting_for_a_core_is_read() -> None:
    made = LineSampler(threading.get_ident(), lambda: None, lambda tree: None, is_ours)
    assert made._runq_ns() == 0
    if made._kernel.open():
        time.sleep(0.001)
        own = made._kernel.runq_ns(threading.get_native_id())
        assert own is not None
        assert 0 < own <= made._runq_ns()
    made._kernel.close()


def test_short_times_off_the_cpu_are_added_up_before_a_look() -> None:
    made = sampler(cpu=True)
    looks = []
    for now in range(1, 6):
        made.used_ns = now * 20 * MS - now * SHORT_NS // 4
        made._sample(now * 20 * MS)
        looks.append(taken(made.tree))
    assert looks == [(0, 0, 0), (0, 0, 0), (0, 0, 0), (1, SHORT_NS, 0), (0, 0, 0)]


def test_between_batches_time_passes_and_is_not_counted() -> None:
    stage: list[str | None] = [None]
    made = sampler(lambda: stage[0])
    made._sample(20 * MS)
    stage[0] = "decode"
    made._sample(30 * MS)
    assert taken(made.tree)[:2] == (1, 10 * MS)


def test_it_samples_more_seldom_where_a_look_costs_more() -> None:
    made = sampler()
    made._looks = 50
    made._looks_cpu_ns = 50 * 10_000
    made._keep_to_budget()
    assert made._period_s == 1 / HZ
    made._looks_cpu_ns = 50 * 200_000
    made._keep_to_budget()
    assert made._period_s == pytest.approx(0.0002 / BUDGET)


def test_what_is_sent_with_the_samples_makes_them_no_rarer() -> None:
    """After the first look it is nearly all that the thread has cost."""

    def send(tree: CallTree) -> None:
        end_ns = time.thread_time_ns() + 20 * MS
        while time.thread_time_ns() < end_ns:
            pass
        made._stopped = True

    made = LineSampler(threading.get_ident(), lambda: "decode", send, is_ours)
    made._run()
    assert made.own_cpu_ns >= 20 * MS
    assert made._period_s < 20 * MS * 1e-9 / BUDGET / 2


def test_it_flushes_at_once_when_it_is_asked() -> None:
    """The second look is not yet due to be flushed; it would be 0.125 s after the first."""
    flushed = []

    def flush(tree: CallTree) -> None:
        flushed.append(taken(tree)[0])
        made._stopped = len(flushed) == 3

    made = sampler()
    made._flush, made._is_asked = flush, lambda: len(flushed) == 1
    made._run()
    assert flushed[1] == 1, "of one look"


def test_what_fails_in_the_thread_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(tree: CallTree) -> None:
        raise RuntimeError("the slot is gone")

    made = LineSampler(threading.get_ident(), lambda: "decode", fail, lambda code: False, hz=1000)
    made.start()
    assert made._running is not None
    made._running.join()
    assert capfd.readouterr() == ("", "")


def test_our_own_code_is_told_from_the_users() -> None:
    assert is_ours(LineSampler.start.__code__)
    assert not is_ours(taken.__code__)
