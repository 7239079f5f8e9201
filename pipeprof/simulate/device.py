"""A storage device in virtual time: the cost model that the emulated device sleeps by, added up instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pipeprof.devices import Server, StorageModel

Read = Callable[[int], int]
"""Maps the time at which a bundle of requests arrives to the time at which the last of it has been read."""


class VirtualStorage:
    """Storage in virtual time, shared by every worker of every rank on the node."""

    def __init__(self, model: StorageModel, readers: int) -> None:
        if model.kind == "parallel":
            # exact: a reader has one request outstanding, so channels beyond the readers never serve one
            model = replace(model, channels=max(1, min(model.channels, readers)))
        self.model = model
        self._state = model.new_state()
        self._served = 0
        self._bundles: dict[float, Server] = {}

    def reads(self, requests: float, size_bytes: float, reader: int, onwards: bool) -> Read:
        """Return what reads `requests` of `size_bytes` in all in one go, again and again.

        Each cost of a request is multiplied: a bundle is to a piece what a request is to a sample.
        `onwards` goes on where this reader's last bundle ended, which a disk does without moving its arm
        unless another reader was served in between.
        """
        serve, size_bytes = self._bundles.get(requests) or self._bundle(requests), round(size_bytes)
        if onwards:
            return partial(self._read_on, serve, -2 - reader, size_bytes)
        return partial(self._read, serve, size_bytes)

    def _read(self, serve: Server, size_bytes: int, arrival_ns: int) -> int:
        self._served = served = self._served + 1
        return serve(self._state, arrival_ns, served, 0, size_bytes)[1]

    def _read_on(self, serve: Server, file_id: int, size_bytes: int, arrival_ns: int) -> int:
        offset = self._state[2] if self._state[1] == file_id else 0
        return serve(self._state, arrival_ns, file_id, offset, size_bytes)[1]

    def _bundle(self, requests: float) -> Server:
        """Return how that many requests are served in one go, to a hundredth."""
        serve = self._bundles[requests] = _bundled(self.model, round(requests, 2)).server
        return serve


def node_share(model: StorageModel, nodes: int) -> StorageModel:
    """Return what one of `nodes` machines that use a device alike sees: shared figures, n times slower."""
    return replace(
        model,
        bandwidth_bytes_per_s=model.bandwidth_bytes_per_s / nodes,
        seek_ns=model.seek_ns * nodes,
        half_rotation_ns=model.half_rotation_ns * nodes,
        requests_per_s=model.requests_per_s / nodes,
        channels=max(1, model.channels // nodes),
    )


def _bundled(model: StorageModel, requests: float) -> StorageModel:
    return replace(
        model,
        seek_ns=round(model.seek_ns * requests),
        half_rotation_ns=round(model.half_rotation_ns * requests),
        latency_ns=round(model.latency_ns * requests),
        requests_per_s=model.requests_per_s / requests if requests else model.requests_per_s,
    )
