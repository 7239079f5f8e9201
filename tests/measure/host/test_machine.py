"""Facts about the machine."""

from __future__ import annotations

import mmap
import os

import pytest

from pipeprof.measure.host import machine


def test_the_first_touch_of_fresh_memory_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing 1 MiB twice: the first time costs 700, 500 and 900 ns more than the second."""
    times = iter([0, 1700, 2700, 0, 1500, 2500, 0, 1900, 2900, 0, 1000, 2600])
    monkeypatch.setattr(machine.time, "thread_time_ns", times.__next__)
    rounds = [machine._first_touch_ns(mmap.mmap(-1, 4096)) for _ in range(4)]
    assert rounds == [700, 500, 900, 0], "never negative, where the second write was disturbed"


def test_fresh_memory_costs_the_least_of_a_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """First of shared memory, then of a process's own; then what giving some back takes."""
    rounds, released = iter([900, 500, 700, 800, 450, 300, 350, 400]), iter([130, 120, 150, 110])
    monkeypatch.setattr(machine, "_first_touch_ns", lambda memory: memory.close() or next(rounds))
    monkeypatch.setattr(machine, "_release_ns", released.__next__)
    costs = machine.memory_costs.__wrapped__()
    assert costs == machine.MemoryCosts(500 / 2**20, 300 / 2**20, 110 / 2**20)


def test_giving_memory_back_is_not_observed_where_none_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(machine.os, "memfd_create", refuse)
    assert machine.memory_costs.__wrapped__().released_byte_ns is None


def test_usable_cores_follow_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota_cores", lambda: None)
    assert machine.usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "cpu_quota_cores", lambda: 0.5)
    assert machine.usable_cores() == 0.5


def test_memory_is_what_the_limits_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("memory_limit_bytes", "memory_left_bytes"):
        monkeypatch.setattr(machine, limit, lambda: None)
    total, free = machine.usable_memory_bytes(), machine.free_memory_bytes()
    assert 2**20 < free <= total
    monkeypatch.setattr(machine, "memory_limit_bytes", lambda: 5000)
    monkeypatch.setattr(machine, "memory_left_bytes", lambda: 3000)
    assert (machine.usable_memory_bytes(), machine.free_memory_bytes()) == (5000, 3000)
