"""A storage device in virtual time: the cost model that the emulated device sleeps by, added up instead."""

from __future__ import annotations

from dataclasses import replace

from pipeprof.devices import Request, StorageModel


class Device:
    """Storage in virtual time, shared by every worker of every rank on the node."""

    def __init__(self, model: StorageModel, readers: int) -> None:
        if model.kind == "parallel":
            # exact: a reader has one request outstanding, so channels beyond the readers never serve one
            model = replace(model, channels=max(1, min(model.channels, readers)))
        self.model = model
        self._state = model.new_state()
        self._served = 0
        self._bundles: dict[float, StorageModel] = {}

    def read(self, arrival_ns: float, requests: float, size_bytes: float, reader: int, onwards: bool) -> int:
        """End of `requests` of `size_bytes` in all, served in one go.

        Each cost of a request is multiplied: a bundle is to a piece what a request is to a sample.
        `onwards` goes on where this reader's last bundle ended, which a disk does without moving its arm
        unless another reader was served in between.
        """
        self._served += 1
        place = Request(-2 - reader, 0, 0) if onwards else Request(self._served, 0, 0)
        if onwards and self._state[1] == place.file_id:
            place = Request(place.file_id, self._state[2], 0)
        whole = Request(place.file_id, place.offset, round(size_bytes))
        size = round(requests, 2)
        model = self._bundles.get(size)
        if model is None:
            model = self._bundles[size] = _bundled(self.model, size)
        return model.serve(self._state, int(arrival_ns), whole).end_ns


def node_share(model: StorageModel, nodes: int) -> StorageModel:
    """What one of `nodes` machines that use a device alike sees of it: its shared figures, n times slower."""
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
