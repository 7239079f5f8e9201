"""A storage device in virtual time: the cost model that the emulated device sleeps by, added up instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeprof.devices import Request, StorageModel
from pipeprof.devices.models import Service, State

Serve = Callable[[State, int, Request], Service]


class VirtualStorage:
    """Storage in virtual time, shared by every worker of every rank on the node."""

    def __init__(self, model: StorageModel, readers: int) -> None:
        if model.kind == "parallel":
            # exact: a reader has one request outstanding, so channels beyond the readers never serve one
            model = replace(model, channels=max(1, min(model.channels, readers)))
        self.model = model
        self._state = model.new_state()
        self._served = 0
        self._bundles: dict[float, Serve] = {}

    def read(self, arrival_ns: float, requests: float, size_bytes: float, reader: int, onwards: bool) -> int:
        """Return the end of `requests` of `size_bytes` in all, served in one go.

        Each cost of a request is multiplied: a bundle is to a piece what a request is to a sample.
        `onwards` goes on where this reader's last bundle ended, which a disk does without moving its arm
        unless another reader was served in between.
        """
        self._served += 1
        serve = self._bundles.get(requests) or self._bundle(requests)
        size = round(size_bytes)
        if not onwards:
            return serve(self._state, int(arrival_ns), Request(self._served, 0, size)).end_ns
        file_id = -2 - reader
        offset = self._state[2] if self._state[1] == file_id else 0
        return serve(self._state, int(arrival_ns), Request(file_id, offset, size)).end_ns

    def _bundle(self, requests: float) -> Serve:
        """Return how so many requests are served in one go, to a hundredth."""
        serve = self._bundles[requests] = _bundled(self.model, round(requests, 2)).serve
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
