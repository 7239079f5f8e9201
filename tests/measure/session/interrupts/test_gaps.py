"""A standstill of the process is told from a busy one; the time is handed in."""

from __future__ import annotations

import pytest

from pipeprof.measure.session.interrupts.gaps import Gaps
from tests.factory import MS, S


def gaps_after(gap_ns: int, cpu_ns: int, queued_ns: int) -> int:
    now = {"clock": 0, "cpu": 0, "queued": 0}
    gaps = Gaps(lambda: now["clock"], lambda: now["cpu"], lambda: now["queued"])
    now.update(clock=gap_ns, cpu=cpu_ns, queued=queued_ns)
    return gaps.look()


@pytest.mark.parametrize(
    ("gap", "cpu", "queued", "stood"),
    [
        (50 * MS, 0, 0, 0),  # an ordinary look
        (5 * S, 10 * MS, 20 * MS, 5 * S),  # stopped
        (5 * S, 100 * MS, S, 5 * S),  # stopped, and then no core was free for a while
        (5 * S, 5 * S, 0, 0),  # a native call held the GIL
        (5 * S, 0, 4 * S, 0),  # no core was free
        (5 * S, 0, -1, 0),  # the kernel does not tell
    ],
)
def test_a_standstill_is_a_gap_in_which_nothing_happened(gap: int, cpu: int, queued: int, stood: int) -> None:
    assert gaps_after(gap, cpu, queued) == stood
