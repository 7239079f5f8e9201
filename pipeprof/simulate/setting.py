"""The knobs and the machine that a run was recorded under, from its run.json."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np

from pipeprof.analyse.breaks import events_of
from pipeprof.analyse.facts import cores_of
from pipeprof.devices import LinkModel, StorageModel, storage_from_dict
from pipeprof.pipeline import read_ints, shapes_of
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.recorded import Recorded
from pipeprof.trace import Run


def measured_knobs(run: Run, recorded: Recorded) -> Knobs:
    """What the run's main loader, accelerator, storage and machine were."""
    timeline = recorded.timeline
    loader_id = int(timeline.loader[0])
    shape = shapes_of(run, timeline)[loader_id]
    loader = _told(run, loader_id)
    timed = bool((timeline.compute_end_ns >= 0).any())
    return Knobs(
        workers=shape.workers,
        prefetch=shape.prefetch,
        in_order=shape.in_order,
        pin_memory=not shape.pageable,
        persistent_workers=bool(loader.get("persistent_workers")),
        batch_size=int(loader.get("batch_size") or max(1, timeline.samples.max(initial=1))),
        synchronises=shape.synchronises or not timed,
        queue_depth=shape.queue_depth,
        prefetch_to_device=shape.copies_overlap,
        cores=usable_cores(run),
        storage=storage_model(run.meta.get("storage") or {}),
        cache_share=cache_share(run.meta.get("storage") or {}),
        access="shards" if (run.meta.get("data") or {}).get("format") == "tar_shards" else "files",
        link=None,
    )


def _told(run: Run, loader_id: int) -> dict[str, Any]:
    """What run.json says of the loader."""
    return next((one for one in run.meta.get("loaders") or [] if one.get("id") == loader_id), {})


def world_size(run: Run) -> int:
    """Ranks of the job that the run is one of."""
    return int(run.meta.get("world_size") or 1)


def usable_cores(run: Run) -> float:
    """Cores by affinity and quota; the ranks of a node share them."""
    return cores_of(run.meta) or 1.0


def storage_model(facts: Mapping[str, Any]) -> StorageModel:
    """The cost model of the storage."""
    figures = facts.get("model")
    if figures:
        return storage_from_dict(figures)
    return MEMORY if facts.get("tier") in ("ram", "pinned") else UNKNOWN


def cache_share(facts: Mapping[str, Any]) -> float:
    """Share of the bytes that the emulated page cache served; what it served is in no recorded request."""
    cache = facts.get("emulated_cache") or {}
    hits, misses = float(cache.get("bytes_from_memory") or 0), float(cache.get("bytes_from_device") or 0)
    return hits / (hits + misses) if hits else 0.0


def link_model(run: Run) -> LinkModel | None:
    """The link to the accelerator, where its figures are known."""
    link = (run.meta.get("accelerator") or {}).get("link")
    return LinkModel(**link) if isinstance(link, Mapping) else None


def batches_per_epoch(run: Run, recorded: Recorded, knobs: Knobs) -> int:
    """Batches that the loader gives before it ends: as many as it gave where it did, else by its data set."""
    loader_id = int(recorded.timeline.loader[0])
    taken = read_ints(run, "steps", ("loader", "epoch"))
    counts = np.bincount(taken["epoch"][(taken["loader"] == loader_id) & (taken["epoch"] >= 0)])
    ended = [
        int(counts[epoch])
        for loader, epoch in events_of(run, "epoch_end")
        if loader == loader_id and 0 <= epoch < len(counts)
    ]
    seen = int(counts.max(initial=1))
    if ended:
        return max(1, *ended)
    samples = _told(run, loader_id).get("samples")
    return max(seen, _of_the_set(run, int(samples), knobs.batch_size)) if samples else seen


def _of_the_set(run: Run, samples: int, batch_size: int) -> int:
    """By the size of the set, of which each rank of a job takes its part; a last small batch counts too,
    unless the scenario drops it."""
    resolved = ((run.meta.get("scenario") or {}).get("resolved") or {}).get("loader") or {}
    part = ceil(samples / world_size(run))
    return part // batch_size if resolved.get("drop_last") else ceil(part / batch_size)
