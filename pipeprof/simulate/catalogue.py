"""The catalogue of fixes: each a change of knobs or demands, and what it costs. `ranking` predicts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from pipeprof import units
from pipeprof.analyse.causes import is_heavy
from pipeprof.devices import storage_preset
from pipeprof.record.meta import MOST_WORKERS
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.loop import RECEIVING
from pipeprof.simulate.knobs import LEARNED, MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.sampling import cpu_by_owner, scalable
from pipeprof.simulate.uncertainty import WORTH_TELLING
from pipeprof.units import percent
from pipeprof.vocabulary import fixes, owners

TRANSFORM_ON_DEVICE: Final = 0.1
"""Device time of a transform over its CPU time: one core against an accelerator, a cautious assumption."""
CHEAPER: Final = 0.5
"""Share that `cheaper-decode` leaves of decoding (JPEG's draft mode, or images stored smaller), and a faster
implementation of a transform."""
LIGHTER: Final = 0.25
"""Share of the transfer that `lighter-transfer` leaves: bytes cross between processes, not 32-bit floats."""


@dataclass(frozen=True, slots=True)
class PossibleFix:
    """A possible change. `word` is from the vocabulary; several fixes may share it."""

    word: str
    title: str
    how: str
    """Text to type in the user's own program: an argument of the DataLoader, or what to write."""
    knobs: Knobs
    ram_bytes: int | None = 0
    """Host memory that it needs beyond what the run used; None if the run does not say."""
    cores: float = 0.0
    """Cores that it keeps busy beyond what the run did, at most."""
    assumption: str = ""
    """Assumption about it that was not measured."""
    keys: str = ""
    """Keys of a scenario, with their values, that apply it if a scenario was run."""
    owner: str = ""
    """Owner whose lines are to be changed; empty if it is no owner's."""
    wraps: bool = False
    """True if the data set is wrapped in the call of DataLoader."""

    @property
    def is_at_loader(self) -> bool:
        """Return True if the call of DataLoader has to be changed."""
        return self.wraps or bool(fixes.BY_WORD[self.word].argument)


Maker = Callable[[Demands], Iterator[PossibleFix]]


def _workers(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    for workers in worker_counts(knobs):
        more = workers - knobs.workers
        if more:
            fewer = fixes.FEWER_WORKERS if workers else fixes.NO_WORKERS
            yield PossibleFix(
                (fixes.MORE_WORKERS if more > 0 else fewer).word,
                f"{workers} workers" if workers else "no workers",
                f"num_workers={workers}",
                replace(knobs, workers=workers),
                ram_bytes=max(0, more) * knobs.prefetch * round(demands.batch_bytes),
                cores=max(0.0, min(float(workers), knobs.cores) - max(1, knobs.workers)),
            )


def worker_counts(knobs: Knobs) -> list[int]:
    """Return counts worth asking about: up to four a core, and twice what there are."""
    most = max(round(4 * knobs.cores / knobs.ranks), 2 * knobs.workers, 8)
    return [count for count in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if count <= most]


def _prefetch(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    for prefetch in (4, 8, 16):
        if knobs.workers and prefetch > knobs.prefetch:
            yield PossibleFix(
                fixes.DEEPER_PREFETCH.word,
                f"prefetch {prefetch} batches a worker",
                f"prefetch_factor={prefetch}",
                replace(knobs, prefetch=prefetch),
                ram_bytes=(prefetch - knobs.prefetch) * knobs.workers * round(demands.batch_bytes),
            )


def _order(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    if knobs.workers > 1 and knobs.in_order:
        yield PossibleFix(
            fixes.OUT_OF_ORDER.word,
            "out-of-order delivery",
            "in_order=False",
            replace(knobs, in_order=False),
        )


def _epochs(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    if knobs.workers and not knobs.persistent_workers and demands.steps > demands.batches_per_epoch:
        yield PossibleFix(
            fixes.PERSISTENT_WORKERS.word,
            "keep the workers between epochs",
            "persistent_workers=True",
            replace(knobs, persistent_workers=True),
        )


def _memory(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    if not demands.place.reads_observed:
        return
    if knobs.storage != MEMORY:
        yield PossibleFix(
            fixes.RAM.word,
            "the files' bytes in RAM",
            "copy the files to /dev/shm, or read them once before the first epoch",
            replace(knobs, storage=MEMORY),
            ram_bytes=_known(demands.place.set_bytes),
            keys="storage.tier=ram",
        )
    if demands.batches.cpu.get(owners.DECODE.name) is not None:
        samples = demands.batches_per_epoch * knobs.batch_size * demands.world_size
        yield PossibleFix(
            fixes.RAM.word,
            "decoded samples in RAM",
            'pipeprof.cached(dataset, "ram", transform=…), with what is random in transform',
            replace(knobs, storage=MEMORY, keep="decoded"),
            ram_bytes=_known(demands.batch_bytes / knobs.batch_size * samples),
            assumption="a decoded sample is as large as the one that the loader returns",
            keys="storage.tier=ram storage.keep=decoded",
            wraps=True,
        )


def _known(size_bytes: float | None) -> int | None:
    return round(size_bytes) if size_bytes else None


def _storage(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    better: dict[str | None, tuple[str, ...]] = {
        "hdd": ("ssd", "nvme"),
        "ssd": ("nvme",),
        "network": ("ssd", "nvme"),
        None: ("ssd", "nvme"),
    }
    if not demands.place.reads_observed or knobs.storage == MEMORY:
        return
    known = knobs.storage != UNKNOWN and knobs.storage.name != LEARNED
    for tier in better.get(knobs.storage.tier if known else demands.place.tier, ()):
        model = storage_preset(tier)
        yield PossibleFix(
            fixes.FASTER_STORAGE.word,
            f"the data on {tier.upper() if tier != 'nvme' else 'NVMe'}",
            f"copy the data to {'an SSD' if tier == 'ssd' else 'an NVMe drive'} of this machine",
            replace(knobs, storage=model),
            assumption=f"a device like {model.name}"
            + ("" if known else "; what the present storage could give is not known"),
            keys=f"storage.tier={tier}",
        )


def _shards(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    served = knobs.storage.kind != "memory" and knobs.storage.name != LEARNED
    if demands.place.reads_observed and knobs.access == "files" and served:
        yield PossibleFix(
            fixes.SHARDS.word,
            "files packed into shards",
            "pack the files into tar shards and read them with WebDataset",
            replace(knobs, access="shards"),
            assumption="samples are shuffled as shards and in a buffer, no longer one by one",
            keys="data.format=tar_shards",
        )


def _link(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    if not demands.batches.copy.any():
        return
    if not knobs.pin_memory:
        yield PossibleFix(
            fixes.PIN.word,
            "page-locked batches, copied without blocking",
            "pin_memory=True and .to(device, non_blocking=True)",
            replace(knobs, pin_memory=True),
            ram_bytes=round(demands.batch_bytes) * max(1, knobs.outstanding),
        )
    if not knobs.prefetch_to_device:
        yield PossibleFix(
            fixes.DEVICE_PREFETCH.word,
            "the next batch copied on a side stream",
            "copy the next batch on a CUDA stream of its own, with pin_memory=True",
            replace(knobs, pin_memory=True, prefetch_to_device=True),
            ram_bytes=round(demands.batch_bytes) * max(1, knobs.outstanding),
            keys="accelerator.prefetch_to_device=true",
        )


def _work(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    costs = {owner: float(values.mean()) for owner, values in cpu_by_owner(demands, knobs).items()}
    if costs.get(owners.DECODE.name):
        yield PossibleFix(
            fixes.CHEAPER_DECODE.word,
            "half the decoding",
            "decode only what is used: fewer frames or pictures, a lower resolution, smaller stored samples",
            knobs.scaled(**{owners.DECODE.name: CHEAPER}),
            assumption="decoding takes half the CPU time",
            owner=owners.DECODE.name,
        )
    named = {
        owner: cost
        for owner, cost in costs.items()
        if cost and owners.record_of(owner).takes_name and owner not in owners.CODE
    }
    for owner in sorted(named, key=named.__getitem__, reverse=True)[:2]:
        yield _cheaper(owner, named[owner], knobs, demands.has_device)


ON_BATCHES: Final = {
    "ToTensor": "return uint8 tensors (PILToTensor), and convert the whole batch after .to(device)",
    "ToImage": "return uint8 tensors, and convert the whole batch after .to(device)",
    "ToDtype": "return uint8 tensors, and convert the whole batch after .to(device)",
    "ConvertImageDtype": "return uint8 tensors, and convert the whole batch after .to(device)",
    "Normalize": "apply Normalize to the whole batch after .to(device)",
}
"""Transforms that give the same for a whole batch after its copy. Crops and resizes make samples equal in
size and cannot be applied to a batch; random transforms would draw once for all of its samples."""


def _cheaper(owner: str, cpu_ns: float, knobs: Knobs, has_device: bool) -> PossibleFix:
    """Return the fix for a transform, or a stage of the user's own, that costs `cpu_ns` a batch."""
    name = owners.name_in(owner)
    is_transform = owners.family_of(owner) == owners.TRANSFORM.name
    if is_transform and has_device and name in ON_BATCHES:
        return PossibleFix(
            fixes.CHEAPER_TRANSFORM.word,
            f"{name} on the accelerator",
            ON_BATCHES[name],
            replace(knobs.scaled(**{owner: 0.0}), extra_compute_ns=round(TRANSFORM_ON_DEVICE * cpu_ns)),
            assumption=f"the accelerator needs {percent(TRANSFORM_ON_DEVICE)} of its CPU time",
            owner=owner,
        )
    in_advance = "" if is_transform else ", or do it once in advance"  # random transforms cannot be
    return PossibleFix(
        (fixes.CHEAPER_TRANSFORM if is_transform else fixes.CHEAPER_WORK).word,
        f"{name} in half the time",
        f"use a faster implementation, or smaller samples{in_advance}",
        knobs.scaled(**{owner: CHEAPER}),
        assumption=f"{name} takes half the CPU time",
        owner=owner,
    )


_MOVED: Final = (owners.TRANSFER.name, owners.H2D.name)
"""Owners whose time follows the size of a batch."""


def _sharing(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    if knobs.workers and not knobs.shares_by_name and (demands.batches.locked == RECEIVING).any():
        yield PossibleFix(
            fixes.FILE_SYSTEM_SHARING.word,
            "batches shared through the file system",
            'torch.multiprocessing.set_sharing_strategy("file_system")',
            replace(knobs, shares_by_name=True),
            assumption="opening a batch's memory by name takes no time",
        )


def _rest(demands: Demands) -> Iterator[PossibleFix]:
    knobs = demands.measured
    lighter = {owner: LIGHTER for owner in _MOVED if owner in scalable(demands)}
    if knobs.workers and lighter and is_heavy(demands.batch_bytes, demands.pickling_ns):
        yield PossibleFix(
            fixes.LIGHTER_TRANSFER.word,
            "less between processes",
            "return uint8 and convert on the device; fewer, larger tensors instead of many small ones",
            knobs.scaled(**lighter),
            assumption="a quarter of the bytes, or of the tensors, takes a quarter of the time",
        )
    if knobs.neighbours >= WORTH_TELLING and demands.host.other_cores is not None:
        yield PossibleFix(
            fixes.FREE_CORES.word,
            "no other programs on these cores",
            "stop them, or give this job cores that they do not use (taskset, cpusets)",
            replace(knobs, neighbours=0.0),
        )
    yield PossibleFix(
        fixes.MORE_CORES.word,
        units.cores(2 * knobs.cores),
        "a larger machine, or a higher CPU quota",
        replace(
            knobs,
            cores=2 * knobs.cores,
            workers=max(knobs.workers, min(round(2 * knobs.cores), MOST_WORKERS)),
        ),
        cores=knobs.cores,
    )
    # ranks meet when their step has ended, whatever the loop does besides
    ends_steps = demands.world_size > 1 or not demands.emulated_accelerator
    unheld = replace(knobs, synchronises=knobs.synchronises and ends_steps)
    if owners.MAIN.name in scalable(demands):
        unheld = unheld.scaled(**{owners.MAIN.name: 0.0})
    if unheld != knobs and (demands.world_size == 1 or demands.batches.met.any()):
        yield PossibleFix(
            fixes.LOOP.word,
            "no work but training in the loop",
            "do it in the workers or beforehand; log, save and call .item() every so many steps",
            unheld,
            assumption="all of the loop's own Python goes",
            owner=owners.MAIN.name,
        )


CATALOGUE: Final[tuple[Maker, ...]] = (
    _epochs,
    _prefetch,
    _order,
    _workers,
    _sharing,
    _link,
    _shards,
    _memory,
    _storage,
    _work,
    _rest,
)
"""The makers of fixes, the cheapest to apply first."""


def catalogue(demands: Demands) -> list[PossibleFix]:
    """List every fix that makes sense for this run."""
    return [fix for make in CATALOGUE for fix in make(demands)]
