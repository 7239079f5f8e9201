"""The critical path of a made run, found without walking: every event carries the owners of its own past.

An event happens when the last of what it waits for has happened; its past is that one's past and the
activity between. So the owners of the last computation are the critical path, by construction.
"""

from __future__ import annotations

from collections import Counter
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
    made = walk(plan)
    n, width = plan.batches, plan.workers * plan.prefetch
    origin = Past(made.request[0], Counter())
    free: list[Past] = [origin] * max(1, plan.workers)
    started = [False] * max(1, plan.workers)
    take: list[Past] = []
    available: list[Past] = []
    compute: list[Past] = []
    launch: list[Past] = []
    copied: list[Past] = []
    for k in range(n):
        resumed = origin if k == 0 else (compute if plan.synchronises else launch)[k - 1]
        request = resumed.then("main", made.request[k] - resumed.time_ns)
        work = made.finish[k] - made.start[k]
        if plan.workers == 0:
            take.append(request.then(MAKING, work))
        else:
            worker = k % plan.workers
            asked = take[k - width] if k >= width else origin
            start = latest(asked, free[worker] if started[worker] else None)
            started[worker] = True
            free[worker] = finish = start.then(MAKING, work)
            available.append(_arrival(plan, made.available[k], finish, available[-1] if k else None))
            take.append(latest(request, available[k]))
        copy = latest(take[k], copied[-1] if k else None)
        copied.append(copy.then("h2d", made.copy_end[k] - made.copy_start[k]))
        ready = latest(copied[k], compute[-1] if k else None)
        compute.append(ready.then("accelerator", made.compute_end[k] - made.compute_start[k]))
        held = None if plan.pin_memory else copied[k]
        full = compute[k - plan.queue_depth] if k >= plan.queue_depth else None
        launch.append(latest(take[k], held, full))
        assert compute[k].time_ns == made.compute_end[k]
        assert take[k].time_ns == made.take[k]
    return compute[-1].owners


def _arrival(plan: Plan, when: int, finish: Past, before: Past | None) -> Past:
    """In the main process, where the pin thread takes one batch after the other."""
    if plan.pin_memory and before is not None and before.time_ns > finish.time_ns:
        return before.then("pin", when - before.time_ns)
    return finish.then("transfer", when - finish.time_ns)
