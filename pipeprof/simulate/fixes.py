"""The catalogue of fixes: each a change of knobs or demands, what it costs, and what limits the run then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof.devices import storage_preset
from pipeprof.errors import InconclusiveError
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.doubt import WORTH_TELLING
from pipeprof.simulate.draw import owners, scalable
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.predict import Estimate, Prediction, predict

NOISE: Final = 0.02
"""Predicted throughputs this close are equal; the cheaper fix is the better one then."""
TRANSFORM_ON_DEVICE: Final = 0.1
"""Device time of a transform over its CPU time: one core against an accelerator, a cautious assumption."""
CHEAPER: Final = 0.5
"""What `cheaper-decode` leaves of decoding: JPEG's draft mode, or images stored smaller."""
LIGHTER: Final = 0.25
"""What `lighter-transfer` leaves: bytes instead of 32-bit floats cross between the processes."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A possible change. `word` is of DESIGN §5; several fixes may share it."""

    word: str
    title: str
    how: str
    """What to type: an argument of the DataLoader, a key of a scenario, or what to write."""
    knobs: Knobs
    ram_bytes: int | None = 0
    """Host memory that it needs beyond what the run used; None where the run does not say."""
    cores: float = 0.0
    """Cores that it keeps busy beyond what the run did, at the most."""
    assumption: str = ""
    """What is assumed of it and was not measured."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A fix with what is predicted of it."""

    fix: Fix
    prediction: Prediction
    gain: float
    """Share of the present throughput that it adds; below 0 where it makes things worse."""
    feasible: bool = True
    """The machine has the memory that it needs, as far as that is known."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fix = self.fix
        return {
            "fix": fix.word,
            "title": fix.title,
            "how": fix.how,
            "gain": self.gain,
            "ram_bytes": fix.ram_bytes,
            "cores": fix.cores,
            "feasible": None if fix.ram_bytes is None else self.feasible,
            "assumption": fix.assumption,
            **self.prediction.as_dict(),
        }


Maker = Callable[[Demands], Iterator[Fix]]


def _workers(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    for workers in worker_counts(knobs):
        more = workers - knobs.workers
        if more:
            yield Fix(
                "more-workers" if more > 0 else "fewer-workers",
                f"{workers} workers",
                f"num_workers={workers}",
                replace(knobs, workers=workers),
                ram_bytes=max(0, more) * knobs.prefetch * round(demands.batch_bytes),
                cores=max(0.0, min(float(workers), knobs.cores) - max(1, knobs.workers)),
            )


def worker_counts(knobs: Knobs) -> list[int]:
    """Counts worth asking about: up to four a core, and twice what there are."""
    most = max(round(4 * knobs.cores / knobs.ranks), 2 * knobs.workers, 8)
    return [count for count in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if count <= most]


def _prefetch(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    for prefetch in (4, 8, 16):
        if knobs.workers and prefetch > knobs.prefetch:
            yield Fix(
                "deeper-prefetch",
                f"prefetch {prefetch} batches a worker",
                f"prefetch_factor={prefetch}",
                replace(knobs, prefetch=prefetch),
                ram_bytes=(prefetch - knobs.prefetch) * knobs.workers * round(demands.batch_bytes),
            )


def _order(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    if knobs.workers > 1 and knobs.in_order:
        yield Fix(
            "out-of-order",
            "batches in the order they are done",
            "in_order=False",
            replace(knobs, in_order=False),
        )


def _epochs(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    if knobs.workers and not knobs.persistent_workers and demands.steps > demands.batches_per_epoch:
        yield Fix(
            "persistent-workers",
            "keep the workers between epochs",
            "persistent_workers=True",
            replace(knobs, persistent_workers=True),
        )


def _memory(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    if not demands.storage_observed:
        return
    if knobs.storage != MEMORY:
        yield Fix(
            "ram",
            "the files' bytes in RAM",
            "storage.tier=ram; or copy the files to /dev/shm",
            replace(knobs, storage=MEMORY),
            ram_bytes=_known(demands.set_bytes),
        )
    if demands.batches.cpu.get("decode") is not None:
        samples = demands.batches_per_epoch * knobs.batch_size * demands.world_size
        yield Fix(
            "ram",
            "decoded samples in RAM",
            "storage.tier=ram storage.keep=decoded",
            replace(knobs, storage=MEMORY, keep="decoded"),
            ram_bytes=_known(demands.batch_bytes / knobs.batch_size * samples),
            assumption="a decoded sample is as large as the one that the loader returns",
        )


def _known(size_bytes: float | None) -> int | None:
    return round(size_bytes) if size_bytes else None


def _storage(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    better: dict[str | None, tuple[str, ...]] = {
        "hdd": ("ssd", "nvme"),
        "ssd": ("nvme",),
        "network": ("ssd", "nvme"),
        None: ("ssd", "nvme"),
    }
    if not demands.storage_observed or knobs.storage == MEMORY:
        return
    known = knobs.storage != UNKNOWN
    for tier in better.get(knobs.storage.tier if known else demands.tier, ()):
        model = storage_preset(tier)
        yield Fix(
            "faster-storage",
            f"the data on {tier.upper() if tier != 'nvme' else 'NVMe'}",
            f"storage.tier={tier}",
            replace(knobs, storage=model),
            assumption=f"a device like {model.name}"
            + ("" if known else "; what the present storage could give is not known"),
        )


def _shards(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    if demands.storage_observed and knobs.access == "files" and knobs.storage.kind != "memory":
        yield Fix(
            "shards",
            "files packed into shards",
            "data.format=tar_shards; or WebDataset",
            replace(knobs, access="shards"),
            assumption="samples are shuffled as shards and in a buffer, no longer one by one",
        )


def _link(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    if not demands.batches.copy.any():
        return
    if not knobs.pin_memory:
        yield Fix(
            "pin",
            "page-locked batches, copied without blocking",
            "pin_memory=True and .to(device, non_blocking=True)",
            replace(knobs, pin_memory=True),
            ram_bytes=round(demands.batch_bytes) * max(1, knobs.outstanding),
        )
    if not knobs.prefetch_to_device:
        yield Fix(
            "device-prefetch",
            "the next batch copied on a side stream",
            "accelerator.prefetch_to_device=true; or a CUDA stream of its own, with pin_memory=True",
            replace(knobs, pin_memory=True, prefetch_to_device=True),
            ram_bytes=round(demands.batch_bytes) * max(1, knobs.outstanding),
        )


def _work(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    costs = {owner: float(values.mean()) for owner, values in owners(demands, knobs).items()}
    if costs.get("decode"):
        yield Fix(
            "cheaper-decode",
            "half the decoding",
            "Image.draft(...) before load, or smaller stored images",
            knobs.scaled(decode=CHEAPER),
            assumption="decoding takes half the CPU time",
        )
    named = {
        owner: cost for owner, cost in costs.items() if owner.startswith(("transform:", "stage:")) and cost
    }
    if demands.computes_on_cpu:
        named = {}  # there is no other processor to move them to
    for owner in sorted(named, key=named.__getitem__, reverse=True)[:2]:
        name = owner.partition(":")[2]
        yield Fix(
            "cheaper-transform",
            f"{name} on the accelerator",
            f"apply {name} to the whole batch after .to(device)",
            replace(knobs.scaled(**{owner: 0.0}), extra_compute_ns=round(TRANSFORM_ON_DEVICE * named[owner])),
            assumption=f"the accelerator needs {TRANSFORM_ON_DEVICE:.0%} of its CPU time",
        )


def _rest(demands: Demands) -> Iterator[Fix]:
    knobs = demands.measured
    lighter = {owner: LIGHTER for owner in ("transfer", "h2d") if owner in scalable(demands)}
    if knobs.workers and lighter:
        yield Fix(
            "lighter-transfer",
            "a quarter of the bytes between the processes",
            "return uint8 and convert on the device; or fewer, larger messages",
            knobs.scaled(**lighter),
            assumption="handing a batch over costs in proportion to its bytes",
        )
    if knobs.neighbours >= WORTH_TELLING:
        yield Fix(
            "free-cores",
            "the cores without other programs",
            "stop what else runs on them, or pin this job to cores of its own",
            replace(knobs, neighbours=0.0),
        )
    yield Fix(
        "more-cores",
        f"{2 * knobs.cores:g} cores",
        "a larger machine, or a higher CPU quota",
        replace(knobs, cores=2 * knobs.cores, workers=max(knobs.workers, round(2 * knobs.cores))),
        cores=knobs.cores,
    )
    # ranks meet when their step has ended, whatever the loop does besides
    ends_steps = demands.world_size > 1 or not demands.emulated_accelerator
    unheld = replace(knobs, synchronises=knobs.synchronises and ends_steps)
    if "main" in scalable(demands):
        unheld = unheld.scaled(main=0.0)
    if unheld != knobs and (demands.world_size == 1 or demands.batches.met.any()):
        yield Fix(
            "loop",
            "nothing but training in the loop",
            "log, save and call .item() every so many steps only",
            unheld,
            assumption="all of the loop's own Python goes",
        )


CATALOGUE: Final[tuple[Maker, ...]] = (
    _epochs,
    _prefetch,
    _order,
    _workers,
    _link,
    _shards,
    _memory,
    _storage,
    _work,
    _rest,
)
"""The makers of fixes, the cheapest to carry out first: of equal gains the first is advised."""


def catalogue(demands: Demands) -> list[Fix]:
    """Every fix that makes sense for this run."""
    return [fix for make in CATALOGUE for fix in make(demands)]


def rank(demands: Demands, seed: int = 0) -> tuple[Prediction, list[Ranked]]:
    """The run as it is, and the fixes with their predicted gains, the largest first.

    Of the fixes that share a word and a maker only the one worth advising is kept: the cheapest within noise
    of the best.
    """
    base = predict(demands, demands.measured, seed=seed)
    groups: dict[str, list[Ranked]] = {}
    for fix in catalogue(demands):
        try:
            prediction = predict(demands, fix.knobs, seed=seed)
        except InconclusiveError:
            continue
        gain = prediction.throughput.value / base.throughput.value - 1 if base.throughput.value else 0.0
        feasible = not demands.memory_bytes or (fix.ram_bytes or 0) <= 0.8 * demands.memory_bytes
        key = fix.word if fix.word in ("more-workers", "fewer-workers", "deeper-prefetch") else fix.title
        groups.setdefault(key, []).append(Ranked(fix, prediction, gain, feasible))
    kept = [_advised(group) for group in groups.values()]
    kept = [one for one in kept if one.fix.word not in NO_WORSE or one.gain > -NOISE]
    return base, sorted(kept, key=lambda one: (not one.feasible, -one.gain))


def _advised(group: list[Ranked]) -> Ranked:
    best = max(one.gain for one in group)
    near = [one for one in group if 1 + one.gain >= (1 + best) * (1 - NOISE)]
    return min(near, key=lambda one: (one.fix.knobs.workers, one.fix.knobs.prefetch))


def advised(ranked: list[Ranked]) -> Ranked | None:
    """The one fix to name: of those within noise of the largest gain, the first of the catalogue.

    More cores cost money and stand in the list only; what cannot fit in memory is no advice.
    """
    open_to_all = [
        one for one in ranked if one.feasible and one.fix.word != "more-cores" and one.gain > NOISE
    ]
    if not open_to_all:
        return None
    best = max(one.gain for one in open_to_all)
    near = [one for one in open_to_all if 1 + one.gain >= (1 + best) * (1 - NOISE)]
    order = [word for make in WORDS for word in make]
    return min(near, key=lambda one: order.index(one.fix.word))


WORDS: Final = (
    ("persistent-workers", "deeper-prefetch", "out-of-order", "fewer-workers", "more-workers"),
    ("pin", "device-prefetch", "shards", "ram", "faster-storage"),
    ("free-cores", "cheaper-decode", "cheaper-transform", "lighter-transfer", "loop"),
)
"""The fixes' words, the cheapest to carry out first."""


NO_WORSE: Final = ("fewer-workers", "faster-storage")
"""Fixes that are none where they lose throughput."""


def in_memory(demands: Demands) -> Knobs:
    """The same loop with every batch already in memory: what headspace is measured against."""
    knobs = demands.measured
    everything = dict.fromkeys(scalable(demands) - {"main", "h2d", "collective"}, 0.0)
    # where no read was seen none is left to be made cheaper, and another storage could not be asked for
    if demands.storage_observed:
        knobs = replace(knobs, storage=MEMORY, keep="decoded")
    return replace(knobs, scale={**knobs.scale, **everything})


def headspace(demands: Demands, base: Prediction, seed: int = 0) -> Estimate:
    """Samples a second that the best of all loaders could add."""
    best, now = predict(demands, in_memory(demands), seed=seed).throughput, base.throughput.value
    return Estimate(*(max(0.0, rate - now) for rate in (best.value, best.low, best.high)))
