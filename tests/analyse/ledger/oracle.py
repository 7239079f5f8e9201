"""The critical path of a made run, found without walking: every event carries the owners of its own past.

An event happens when the last of what it waits for has happened; its past is that one's past and the
activity between. So the owners of the last computation are the critical path, by construction.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

from tests.factory import Plan, walk

MAKING = "making"


class Past(NamedTuple):
    """When something happened, and the ns of each owner from the origin up to it."""

    time_ns: int
    owners: Counter[str]

    def then(self, owner: str, ns: int) -> Past:
        """After `ns` more of `owner`."""
        return Past(self.time_ns + ns, self.owners + Counter({owner: ns}))


def latest(*pasts: Past | None) -> Past:
    """The last to happen; the first named of those at the same time."""
    return max((past for past in pasts if past is not None), key=lambda past: past.time_ns)


def critical_owners(plan: Plan) -> Counter[str]:
    """Owners of the critical path of the plan's one epoch, from its origin to its last computation."""
    pasts = _Pasts(plan)
    last = pasts.compute(plan.batches - 1)
    assert last.time_ns == pasts.made.compute_end[-1]
    return last.owners


class _Pasts:
    """The past of each event of each batch, worked out when it is asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.made = plan, walk(plan)
        self.origin = Past(self.made.request[0], Counter())
        order = sorted(range(plan.batches), key=self.made.sent.__getitem__)
        self.arrived_before = dict(zip(order[1:], order[:-1], strict=True))

    @cache  # noqa: B019 - as long as its plan
    def finish(self, k: int) -> Past:
        made, workers = self.made, self.plan.workers
        if workers == 0:
            return self.request(k).then(MAKING, made.finish[k] - made.start[k])
        width = workers * self.plan.prefetch
        asked = self.take(k - width) if k >= width else self.origin
        start = latest(asked, self.finish(k - workers) if k >= workers else None)
        return start.then(MAKING, made.finish[k] - made.start[k])

    @cache  # noqa: B019
    def available(self, k: int) -> Past:
        when, finish = self.made.available[k], self.finish(k)
        before = self.arrived_before.get(k)
        if self.plan.pin_memory and before is not None and self.made.available[before] > finish.time_ns:
            return self.available(before).then("pin", when - self.made.available[before])
        return finish.then("transfer", when - finish.time_ns)

    @cache  # noqa: B019
    def request(self, k: int) -> Past:
        if k == 0:
            return self.origin
        resumed = self.compute(k - 1) if self.plan.synchronises else self.launch(k - 1)
        return resumed.then("main", self.made.request[k] - resumed.time_ns)

    @cache  # noqa: B019
    def take(self, k: int) -> Past:
        past = self.finish(k) if self.plan.workers == 0 else latest(self.request(k), self.available(k))
        assert past.time_ns == self.made.take[k]
        return past

    @cache  # noqa: B019
    def copy(self, k: int) -> Past:
        begun = latest(self.take(k), self.copy(k - 1) if k else None)
        return begun.then("h2d", self.made.copy_end[k] - self.made.copy_start[k])

    @cache  # noqa: B019
    def compute(self, k: int) -> Past:
        begun = latest(self.copy(k), self.compute(k - 1) if k else None)
        return begun.then("accelerator", self.made.compute_end[k] - self.made.compute_start[k])

    @cache  # noqa: B019
    def launch(self, k: int) -> Past:
        depth = self.plan.queue_depth
        held = None if self.plan.pin_memory else self.copy(k)
        return latest(self.take(k), held, self.compute(k - depth) if k >= depth else None)
