"""The knobs of a loader and its machine: what a question to the simulator may change, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pipeprof.devices import (
    DEFAULT_STORAGE,
    STORAGE,
    LinkModel,
    StorageModel,
    link_preset,
    storage_preset,
    with_figures,
)
from pipeprof.errors import InconclusiveError, ScenarioError
from pipeprof.graph import Shape
from pipeprof.suggest import nearest
from pipeprof.vocabulary.arguments import key_named

MEMORY: Final = STORAGE["ram"]
"""Data held in host memory: costs nothing but the CPU time of reading it."""

UNKNOWN: Final = replace(MEMORY, name="storage without a cost model")
"""The user's own storage, of which no figures are known: its reads take what they were recorded to take."""

LEARNED: Final = "this run's storage"
"""Name of a model whose figures are those that the run itself, or a probe of its storage, showed."""

Access = Literal["files", "shards"]


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of the loader and the machine: everything that a prediction may change."""

    workers: int = 0
    prefetch: int = 2
    in_order: bool = True
    pin_memory: bool = False
    """True if the pin thread page-locks batches, which are then copied without blocking the host."""
    persistent_workers: bool = False
    shares_by_name: bool = False
    """True if tensors travel by name (`file_system`): unpickling then needs nothing of the worker."""
    batch_size: int = 32
    synchronises: bool = False
    queue_depth: int = 2
    cores: float = 1.0
    """Cores that the process may really use: affinity and quota."""
    neighbours: float = 0.0
    """Runnable tasks of other programs, on average: they take their share of the cores."""
    storage: StorageModel = MEMORY
    cache_share: float = 0.0
    """Share of the requests that memory serves, 0 to 1."""
    access: Access = "files"
    """Access pattern. `files`: each request goes elsewhere; `shards`: each worker reads a file onwards."""
    keep: Literal["encoded", "decoded"] = "encoded"
    """Form in which samples are kept. `decoded`: they lie in memory; nothing is read or decoded."""
    accelerator_speed: float = 1.0
    """Factor of the accelerator's speed: steps take the recorded time divided by this."""
    prefetch_to_device: bool = False
    """True if the next batch is copied on a side stream while this one computes."""
    link: LinkModel | None = None
    """Model of the link that copies take; None keeps the recorded copy times."""
    ranks: int = 1
    """Processes like this one on the node; they share its cores and its storage."""
    nodes: int = 1
    """Machines like this one that share the storage; throughput is of all of them."""
    scale: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Factors on demands by owner: `{"decode": 0.5}` halves the CPU time of decoding."""
    extra_compute_ns: int = 0
    """Device time added to each step (a transform moved to the accelerator)."""

    def __post_init__(self) -> None:
        for name, low in (
            ("workers", 0),
            ("prefetch", 1),
            ("batch_size", 1),
            ("queue_depth", 1),
            ("nodes", 1),
            ("ranks", 1),
        ):
            if getattr(self, name) < low:
                raise ScenarioError(f"{name} is {getattr(self, name)}", f"give {low} or more")
        if self.cores <= 0 or self.accelerator_speed <= 0 or self.neighbours < 0:
            raise ScenarioError("cores and accelerator.speed must be above 0, neighbours 0 or more")
        if not 0 <= self.cache_share <= 1:
            raise ScenarioError(f"storage.cache_share is {self.cache_share:g}", "give a share from 0 to 1")

    def scaled(self, **factors: float) -> Knobs:
        """Return the knobs with some owners' demands multiplied; a factor on a factor multiplies too."""
        return replace(self, scale=_times(self.scale, factors))

    @property
    def outstanding(self) -> int:
        """Return the batches dispatched ahead of the loop."""
        return self.workers * self.prefetch

    def shape(self, pins: bool) -> Shape:
        """Return the graph's shape under these knobs. `pins`: a thread of the main process pins batches."""
        return Shape(
            workers=self.workers,
            prefetch=self.prefetch,
            in_order=self.in_order,
            pin_memory=pins,
            pageable=not self.pin_memory,
            copies_overlap=self.prefetch_to_device,
            synchronises=self.synchronises,
            queue_depth=self.queue_depth,
        )


def _times(scale: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    return {**scale, **{owner: scale.get(owner, 1.0) * factor for owner, factor in factors.items()}}


_SIMPLE: Final[dict[str, tuple[str, Any]]] = {
    # dotted key of a scenario or of a question: (knob, how its text is read)
    "loader.workers": ("workers", int),
    "loader.prefetch": ("prefetch", int),
    "loader.in_order": ("in_order", bool),
    "loader.pin_memory": ("pin_memory", bool),
    "loader.persistent_workers": ("persistent_workers", bool),
    "loader.shares_by_name": ("shares_by_name", bool),
    "loader.batch_size": ("batch_size", int),
    "accelerator.sync": ("synchronises", bool),
    "accelerator.queue_depth": ("queue_depth", int),
    "accelerator.prefetch_to_device": ("prefetch_to_device", bool),
    "accelerator.speed": ("accelerator_speed", float),
    "machine.cores": ("cores", float),
    "machine.neighbours": ("neighbours", float),
    "machine.ranks": ("ranks", int),
    "machine.nodes": ("nodes", int),
    "storage.cache_share": ("cache_share", float),
    "storage.keep": ("keep", str),
    "storage.access": ("access", str),
}
_CHOICES: Final = {"keep": ("encoded", "decoded"), "access": ("files", "shards")}
KEYS: Final = (
    *_SIMPLE,
    "storage.tier",
    "storage.profile",
    "storage.device",
    "storage.bandwidth",
    "storage.shared_bandwidth",
    "storage.figures.<figure>",
    "accelerator.link",
    "accelerator.step_ms",
    "scale.<owner>",
)
"""Keys that `--set` understands."""


def change(knobs: Knobs, settings: Mapping[str, str], step_ns: float | None = None) -> Knobs:
    """Return the knobs with `--set key=value` applied, in order.

    `step_ns` is the recorded step time for the recorded batch, which `accelerator.step_ms` is relative to.
    Raises `ScenarioError` for an unknown key or a value that cannot be, `InconclusiveError` for a figure of
    storage that has none.
    """
    for key, text in settings.items():
        knobs = _change_one(knobs, key, str(text), step_ns)
    return knobs


def _with(knobs: Knobs, **changes: Any) -> Knobs:
    return replace(knobs, **changes)


def _change_one(knobs: Knobs, key: str, text: str, step_ns: float | None) -> Knobs:
    key = key_named(key)
    if key in _SIMPLE:
        name, kind = _SIMPLE[key]
        value = _read(key, text, kind)
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ScenarioError(f"{key} is {text!r}", nearest(text, _CHOICES[name]))
        return _with(knobs, **{name: value})
    if key.startswith("storage."):
        return _change_storage(knobs, key, text)
    if key.startswith("scale."):
        return replace(knobs, scale=_times(knobs.scale, {key[6:]: _read(key, text, float)}))
    if key == "accelerator.link":
        return replace(knobs, link=link_preset(text))
    if key == "accelerator.step_ms":
        return replace(knobs, accelerator_speed=_speed(key, text, step_ns))
    raise _unknown(key)


def _change_storage(knobs: Knobs, key: str, text: str) -> Knobs:
    if key == "storage.tier" and text not in DEFAULT_STORAGE:
        raise ScenarioError(f"there is no tier {text!r}", nearest(text, DEFAULT_STORAGE))
    if key in ("storage.tier", "storage.device"):
        pin_memory = knobs.pin_memory or text == "pinned"
        return replace(knobs, storage=storage_preset(text), pin_memory=pin_memory)
    if key in ("storage.bandwidth", "storage.shared_bandwidth"):
        figures = {"bandwidth_bytes_per_s": _rate(key, text)}
    elif key.startswith("storage.figures."):
        figures = {key.rpartition(".")[2]: float(_read(key, text, float))}
    else:
        raise _unknown(key)
    if knobs.storage.kind == "memory":
        raise InconclusiveError(
            f"{key} cannot be asked of {knobs.storage.name}: it has no figures to change",
            "say storage.tier, storage.device or storage.profile first",
        )
    return replace(knobs, storage=with_figures(knobs.storage, figures))


def _unknown(key: str) -> ScenarioError:
    return ScenarioError(f"there is no knob {key!r}", nearest(key, KEYS))


def _speed(key: str, text: str, step_ns: float | None) -> float:
    wanted = float(_read(key, text, float))
    if not step_ns or wanted <= 0:
        raise ScenarioError(
            f"{key}={text} cannot be asked", "the run recorded no step time, or give a time above 0"
        )
    return step_ns / (wanted * 1e6)


def _read(key: str, text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ScenarioError(f"{key} is {text!r}", "give true or false")
    try:
        return kind(text)
    except ValueError as error:
        raise ScenarioError(f"{key} is {text!r}", f"give a number ({kind.__name__})") from error


def _rate(key: str, text: str) -> float:
    """Return bytes per second from `500MB/s`, `20GB/s` or a bare number."""
    units = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3}
    bare = text.lower().removesuffix("/s")
    for unit in sorted(units, key=len, reverse=True):
        if bare.endswith(unit):
            return float(_read(key, bare.removesuffix(unit), float)) * units[unit]
    return float(_read(key, bare.removesuffix("b"), float))
