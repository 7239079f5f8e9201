"""The knobs and the machine that a run was recorded under, from its run.json."""

from __future__ import annotations

from math import ceil

from pipeprof.analyse.figures import cores_of
from pipeprof.devices import LinkModel, StorageModel, Tier, is_in_memory
from pipeprof.record.meta import RunMeta, StorageMeta
from pipeprof.record.reader import Run
from pipeprof.simulate.demands.loop import runs_behind
from pipeprof.simulate.demands.read import Recorded
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs


def measured_knobs(run: Run, recorded: Recorded) -> Knobs:
    """Return the knobs of the run: its main loader, accelerator, storage and machine."""
    timeline = recorded.timeline
    shape = recorded.shape
    loader = run.meta.loader(int(timeline.loader[0]))
    timed = timeline.device_observed or runs_behind(timeline)
    return Knobs(
        workers=shape.workers,
        prefetch=shape.prefetch,
        in_order=shape.in_order,
        pin_memory=not shape.pageable,
        persistent_workers=bool(loader.persistent_workers),
        batch_size=loader.batch_size or int(max(1, timeline.samples.max(initial=1))),
        synchronises=shape.synchronises or not timed,
        queue_depth=shape.queue_depth,
        prefetch_to_device=shape.copies_overlap,
        cores=usable_cores(run),
        storage=storage_model(run.meta.storage),
        cache_share=cache_share(run.meta.storage),
        access="shards" if run.meta.data.format == "tar_shards" else "files",
        link=None,
    )


def world_size(run: Run) -> int:
    """Return the number of ranks of the job that the run is one of."""
    return run.meta.world_size or 1


def usable_cores(run: Run) -> float:
    """Return the usable cores by affinity and quota; the ranks of a node share them."""
    return cores_of(run.meta) or 1.0


def storage_model(storage: StorageMeta) -> StorageModel:
    """Return the cost model of the storage."""
    return storage.model or (MEMORY if is_in_memory(storage.tier) else UNKNOWN)


def tier_of(meta: RunMeta) -> Tier | None:
    """Return the tier of the data's storage; None if it is not known."""
    tier = meta.storage.tier or meta.storage.device.tier or meta.reading.place.tier
    return tier if tier in ("hdd", "ssd", "nvme", "network") else None  # type: ignore[return-value]


def cache_share(storage: StorageMeta) -> float:
    """Return the share of bytes that the emulated page cache served; these are not in any recorded
    request."""
    cache = storage.emulated_cache
    hits, misses = cache.bytes_from_memory or 0, cache.bytes_from_device or 0
    return hits / (hits + misses) if hits else 0.0


def link_model(run: Run) -> LinkModel | None:
    """Return the model of the link to the accelerator, if its figures are known."""
    return run.meta.accelerator.link


def batches_per_epoch(run: Run, recorded: Recorded, knobs: Knobs) -> int:
    """Return the batches that the loader gives before it ends: as many as it gave if it did, else by its data
    set."""
    loader_id = int(recorded.timeline.loader[0])
    ended = [loop_pass.steps for loop_pass in recorded.passes if loop_pass.exhausted]
    seen = max((loop_pass.steps for loop_pass in recorded.passes), default=1)
    if ended:
        return max(1, *ended)
    samples = run.meta.loader(loader_id).samples
    return max(seen, _of_the_set(run, samples, knobs.batch_size)) if samples else seen


def _of_the_set(run: Run, samples: int, batch_size: int) -> int:
    """Return the batches by the size of the set, of which each rank of a job takes its part; a last small
    batch counts too, unless the scenario drops it."""
    part = ceil(samples / world_size(run))
    return part // batch_size if run.meta.settings.loader.drop_last else ceil(part / batch_size)
