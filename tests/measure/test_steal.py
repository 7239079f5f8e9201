"""The hypervisor's share of the machine, from the machine's own counter."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeprof.measure import session_facts, steal
from pipeprof.measure.sensors import SENSORS


def times(user: float, idle: float, stolen: float | None = None) -> object:
    values = {"user": user, "idle": idle, "guest": 0.0}
    if stolen is not None:
        values["steal"] = stolen

    class Times(SimpleNamespace):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(values.values())

    return Times(**values)


def test_its_share_is_of_what_was_asked_for_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([times(10, 5, 1), times(13, 50, 2), times(13, 60, 2)])
    monkeypatch.setattr(steal.psutil, "cpu_times", lambda: next(looks))
    seen = steal.Steal()
    assert seen.sensors() == {"host.steal": pytest.approx(0.25)}
    assert seen.sensors() == {"host.steal": 0.0}


def test_where_no_kernel_counts_it_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steal.psutil, "cpu_times", lambda: times(10, 5))
    assert steal.Steal().sensors() == {}
    assert any("hypervisor" in what for what in session_facts.not_observed_here())


def test_its_sensor_is_in_the_list_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steal.psutil, "cpu_times", lambda: times(10, 5, 1))
    assert set(steal.Steal().sensors()) <= set(SENSORS)
    assert not any("hypervisor" in what for what in session_facts.not_observed_here())
