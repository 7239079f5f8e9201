"""The ranks of a bench run together: they meet after each step, as data parallel training does.

The bench's step ends with an all-reduce of one number over gloo, in place of the gradients' own: it costs
what meeting costs and shows who came last. What the ranks agree on with it is whether the run is over, so
that all end after the same step. Ranks on one machine share its emulated devices.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist

from pipeprof.errors import MeasureError, first_line
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.measure.session.job import Rank
from pipeprof.measure.storage.contract import Storage
from pipeprof.measure.storage.emulated_files import EmulatedStorage
from pipeprof.record.reader import boot_id

_PATIENCE: Final = timedelta(minutes=30)
_NEEDED: Final = ("MASTER_ADDR", "MASTER_PORT")


class Offered(NamedTuple):
    """A rank's emulated device, for those of its machine that have the same to use instead of their own."""

    machine: str
    model: str
    timeline: SharedBlock
    cache: SharedBlock | None


class Peers:
    """All ranks of this job. Use it as a context manager around the runs that they make together.

    Raises `MeasureError` if they cannot find each other.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.count = rank.world_size or 0
        missing = [name for name in _NEEDED if name not in os.environ]
        missing += ["WORLD_SIZE"] if rank.world_size is None else []
        if missing:
            raise MeasureError(
                f"RANK is {rank.rank}, and {' and '.join(missing)} not set", "start the ranks with torchrun"
            )
        try:
            dist.init_process_group("gloo", rank=rank.rank, world_size=self.count, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise MeasureError(f"the ranks do not find each other: {error}") from error

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()

    def meet(self, over: bool) -> bool:
        """End a step together; return whether any rank says that the run is over."""
        any_over = torch.tensor([int(over)], dtype=torch.int32)
        try:
            dist.all_reduce(any_over, dist.ReduceOp.MAX)
        except RuntimeError as error:
            raise _gone(error) from error
        return bool(any_over.item())

    def gather(self, mine: Any) -> list[Any]:
        """Return what every rank contributes, by rank."""
        brought: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(brought, mine)
        except RuntimeError as error:
            raise _gone(error) from error
        return brought

    def share(self, storage: Storage) -> None:
        """Make ranks of one machine that emulate the same device queue at one of them; wait for all.

        None goes on, and may end, before the others have opened its memory.
        """
        offered = self.gather(_offer(storage))
        if isinstance(storage, EmulatedStorage):
            mine = offered[self.rank.rank]
            alike = [each for each in offered if each is not None and each[:2] == mine[:2]]
            first = offered.index(alike[0])
            storage.ranks = len(alike)
            if first != self.rank.rank:
                _queue_at(storage, alike[0])
        self.gather(None)


def _queue_at(storage: EmulatedStorage, other: Offered) -> None:
    try:
        storage.device.shared.join(other.timeline)
        if storage.cache is not None and other.cache is not None:
            storage.cache.shared.join(other.cache)
    except OSError as error:
        raise _gone(error) from error


def _offer(storage: Storage) -> Offered | None:
    if not isinstance(storage, EmulatedStorage):
        return None
    cache = storage.cache
    limit, held = (None, None) if cache is None else (cache.limit_bytes, cache.shared.block)
    model = repr((storage.model, cache is None, limit))
    return Offered(_machine(), model, storage.device.shared.block, held)


def _machine() -> str:
    """Return a name that ranks share which can open each other's memory."""
    host = socket.gethostname()
    with suppress(OSError):
        return f"{boot_id() or host} {Path('/proc/self/ns/pid').readlink()}"
    return host


def _gone(error: Exception) -> MeasureError:
    return MeasureError(
        f"another rank is gone: {first_line(error)}",
        "its own messages say why. What this rank measured until then is kept",
    )
