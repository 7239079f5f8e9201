"""The knobs and the machine that a run was recorded under, from its run.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeprof.analyse.facts import cores_of
from pipeprof.devices import LinkModel, StorageModel, storage_from_dict
from pipeprof.pipeline import shapes_of
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.recorded import Recorded
from pipeprof.trace import Run


def measured_knobs(run: Run, recorded: Recorded) -> Knobs:
    """What the run's main loader, accelerator, storage and machine were."""
    timeline = recorded.timeline
    loader_id = int(timeline.loader[0])
    shape = shapes_of(run, timeline)[loader_id]
    told: list[dict[str, Any]] = [one for one in run.meta.get("loaders") or [] if one.get("id") == loader_id]
    loader = told[0] if told else {}
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
        access="shards" if (run.meta.get("data") or {}).get("format") == "tar_shards" else "files",
        link=None,
    )


def usable_cores(run: Run) -> float:
    """Cores by affinity and quota; the ranks of a node share them."""
    return cores_of(run.meta) or 1.0


def storage_model(facts: Mapping[str, Any]) -> StorageModel:
    """The cost model of the storage."""
    figures = facts.get("model")
    if figures:
        return storage_from_dict(figures)
    return MEMORY if facts.get("tier") in ("ram", "pinned") else UNKNOWN


def link_model(run: Run) -> LinkModel | None:
    """The link to the accelerator, where its figures are known."""
    link = (run.meta.get("accelerator") or {}).get("link")
    return LinkModel(**link) if isinstance(link, Mapping) else None


def batches_per_epoch(run: Run, recorded: Recorded, knobs: Knobs) -> int:
    """Batches that the loader gives before it ends."""
    loader_id = int(recorded.timeline.loader[0])
    for one in run.meta.get("loaders") or []:
        if one.get("id") == loader_id and one.get("samples"):
            return max(1, int(one["samples"]) // knobs.batch_size)
    return max(1, int(recorded.timeline.seq.max(initial=0)) + 1)
