"""Summaries of the runs in a directory, one per run, cached in one file so that no run is read twice.

What a run came to is in its `choice.json`, which the report at its end writes. A run without one is analysed,
once. A summary is made again if the run's files have changed since.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeprof.analyse.analysis import analyse
from pipeprof.analyse.job.merge import merge
from pipeprof.errors import PipeprofError, TraceError
from pipeprof.record import reader
from pipeprof.record.choice import CHOICE_JSON, RecordedChoice, read_choice
from pipeprof.record.decode import MisfitError, decode
from pipeprof.record.files import write_atomically
from pipeprof.record.meta import AcceleratorMeta, LoaderMeta, MachineMeta, Part, StorageMeta
from pipeprof.record.plain_files import read_text
from pipeprof.record.schema import RUN_JSON

CACHE: Final = ".pipeprof-history.json"
"""File of the directory in which the summaries are kept."""
DEPTH: Final = 6
"""Levels of directories that are looked through."""
_SCHEMA: Final = 1
_PACKAGES: Final = ("torch", "torchvision", "torchdata", "pipeprof")


@dataclass(frozen=True, slots=True)
class _Meta(Part):
    """Entries of `run.json` that a summary has, by their names there: reading all of it takes ten times as
    long."""

    status: str = ""
    name: str = ""
    created_at: str | None = None
    loaders: tuple[LoaderMeta, ...] = ()
    accelerator: AcceleratorMeta = field(default_factory=AcceleratorMeta)
    storage: StorageMeta = field(default_factory=StorageMeta)
    machine: MachineMeta = field(default_factory=MachineMeta)
    packages: Mapping[str, str] = field(default_factory=dict)
    emulated: tuple[str, ...] = ()
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """One run, or one job of several ranks. None is “not observed”."""

    directory: str
    """Below the directory of all."""
    status: str
    script: str = ""
    host: str = ""
    setting: str = ""
    """Arguments of its first loader, as they are read: `batch 64, 8 workers, prefetch 2`."""
    when_s: float | None = None
    """Time of its making, in seconds since 1970."""
    ranks: int = 1
    emulated: bool = False
    waiting: float | None = None
    """Share of the time that its accelerators waited for data, or for ranks that did."""
    cause: str | None = None
    mechanism: str | None = None
    rate: float | None = None
    """Samples a second."""
    wall_ns: int | None = None
    """Measured time, of all ranks together."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Settings, data, machine and packages, which may differ from one run to the next, by name."""

    @property
    def waited_s(self) -> float | None:
        """Return the accelerator time spent waiting, in seconds: the cost of the waiting."""
        return None if self.waiting is None or self.wall_ns is None else self.waiting * self.wall_ns / 1e9


@dataclass(frozen=True, slots=True)
class _Place:
    """A run or a job in a directory."""

    directory: Path
    parts: tuple[Path, ...]
    """Directories of its ranks; itself, for a run of one process."""
    signature: str
    """State of its files: it changes if they do."""


Progress = Callable[[int, int], None]
"""Called with the number of runs that were analysed, and of those that are to be."""


def summarise(root: Path, progress: Progress = lambda done, of: None) -> list[Summary]:
    """Return the summaries of all runs below `root`, the oldest first; those without a time come first.

    Raises `TraceError` for anything but a directory.
    """
    if not root.is_dir():
        raise TraceError(f"{root} is not a directory", "give one that holds runs")
    kept, places = _read_cache(root / CACHE), list(_places(str(root), DEPTH))
    names = {place: os.path.relpath(place.directory, root) for place in places}
    entries = {}
    unread = []
    for place in places:
        name = names[place]
        held = kept.get(name)
        if held is not None and held[0] == place.signature:
            entries[name] = held
        else:
            unread.append(place)
    outcomes = {place: _recorded(place) for place in unread}
    slow = [place for place, outcome in outcomes.items() if outcome is None]
    for place, outcome in outcomes.items():
        if outcome is not None:
            entries[names[place]] = (place.signature, _summary(place, names[place], outcome))
    for done, place in enumerate(slow, 1):
        entries[names[place]] = (place.signature, _summary(place, names[place], None))
        progress(done, len(slow))
    if unread or entries.keys() != kept.keys():
        _write_cache(root / CACHE, entries)
    return sorted((one for _, one in entries.values()), key=lambda one: (one.when_s or 0.0, one.directory))


def _places(directory: str, depth: int) -> Iterator[_Place]:
    """Yield the contents of a directory and below. Links are not followed."""
    try:
        with os.scandir(directory) as listing:
            found = list(listing)
    except OSError:
        return
    if any(entry.name == RUN_JSON for entry in found):
        place = Path(directory)
        yield _Place(place, (place,), _signature(directory, [directory]))
        return
    below = sorted(entry.path for entry in found if entry.is_dir(follow_symlinks=False))
    parts = [path for path in below if _is_part(path)]
    if parts:
        yield _Place(Path(directory), tuple(map(Path, parts)), _signature(directory, parts))
    for path in below if depth > 0 else ():
        if path not in parts:
            yield from _places(path, depth - 1)


def _is_part(path: str) -> bool:
    name, _, number = os.path.basename(path).partition("-")  # noqa: PTH119 - of thousands of paths
    return name == "rank" and number.isdecimal() and os.path.exists(f"{path}/{RUN_JSON}")  # noqa: PTH110


def _signature(directory: str, parts: list[str]) -> str:
    states = []
    for path in (*(f"{part}/{RUN_JSON}" for part in parts), f"{directory}/{CHOICE_JSON}"):
        try:
            state = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        states.append((state.st_mtime_ns, state.st_size))
    if len(states) <= 2:
        return json.dumps(states)
    return json.dumps([len(states), max(states), sum(size for _, size in states)])


def _recorded(place: _Place) -> RecordedChoice | None:
    """Return a run's results as recorded beside it; None if not recorded."""
    choice = read_choice(place.directory)
    return choice if choice is not None and choice.wall_ns is not None else None


def _summary(place: _Place, name: str, outcome: RecordedChoice | None) -> Summary:
    """Summarise one run or job. One that cannot be read says so."""
    try:
        metas = [_meta(part) for part in place.parts]
    except (OSError, ValueError, RecursionError, TraceError, MisfitError):
        return Summary(name, "unreadable")
    meta = metas[0]
    status = _status(place, metas)
    if outcome is None and status != "running":
        with suppress(PipeprofError, OSError):
            outcome = _outcome(place)
    return Summary(
        directory=name,
        status=status,
        script=Path(meta.name).name or place.directory.name,
        host=_host(metas),
        setting=_setting(meta),
        when_s=_seconds(meta.created_at),
        ranks=len(metas),
        emulated=bool(meta.emulated),
        facts=_facts(meta),
        **({} if outcome is None else _figures(outcome)),
    )


def _figures(outcome: RecordedChoice) -> dict[str, Any]:
    return {
        "waiting": outcome.stall_share,
        "cause": outcome.cause,
        "mechanism": outcome.mechanism,
        "rate": outcome.throughput_samples_per_s,
        "wall_ns": outcome.wall_ns,
    }


def _meta(directory: Path) -> _Meta:
    raw = json.loads(read_text(directory / RUN_JSON), parse_constant=lambda _: None)
    if not isinstance(raw, dict):
        raise MisfitError
    return decode(_Meta, raw)


def _status(place: _Place, metas: list[_Meta]) -> str:
    """Return the worst status of the parts; one that no longer runs is `partial`."""
    states = {meta.status for meta in metas}
    if "running" in states:
        with suppress(TraceError):
            states = {reader.load(part).status for part in place.parts}
    return next((one for one in ("running", "failed", "interrupted", "partial") if one in states), "complete")


def _outcome(place: _Place) -> RecordedChoice:
    """Analyse a run, or merge a job. Raises `PipeprofError` if that cannot be."""
    if place.parts != (place.directory,):
        return merge([place.directory]).choice
    return analyse(reader.load(place.directory)).verdict.choice


def _host(metas: list[_Meta]) -> str:
    """Return the host; of several the number; of a run that does not say its machine."""
    hosts = sorted({meta.host for meta in metas if meta.host})
    if len(hosts) > 1:
        return f"{len(hosts)} hosts"
    machine = metas[0].machine
    return hosts[0] if hosts else ", ".join((machine.gpu_names or ())[:1]) or machine.cpu_name or "not known"


def _setting(meta: _Meta) -> str:
    loader = meta.loaders[0] if meta.loaders else LoaderMeta(0)
    words = []
    if loader.batch_size is not None:
        words.append(f"batch {loader.batch_size}")
    if loader.workers is not None:
        words.append(f"{loader.workers} workers")
    if loader.prefetch is not None and loader.workers:
        words.append(f"prefetch {loader.prefetch}")
    return ", ".join(words)


def _facts(meta: _Meta) -> dict[str, str]:
    """Return what may differ between two runs of one script."""
    loader = meta.loaders[0] if meta.loaders else LoaderMeta(0)
    gpus = Counter(meta.machine.gpu_names or ())
    facts: dict[str, Any] = {
        "batch size": loader.batch_size,
        "workers": loader.workers,
        "prefetch": loader.prefetch,
        "pinned memory": loader.pin_memory,
        "persistent workers": loader.persistent_workers,
        "data set": loader.dataset,
        "samples of the data set": loader.samples,
        "storage": meta.storage.tier,
        "data": meta.storage.path,
        "accelerator": meta.accelerator.name,
        "GPUs": ", ".join(f"{count} × {name}" for name, count in gpus.items()) or None,
        "CPU": meta.machine.cpu_name,
        "usable cores": meta.machine.usable_cores,
        "kernel": meta.machine.kernel,
        "Python": meta.machine.python,
        **{name: meta.packages.get(name) for name in _PACKAGES},
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _seconds(created: str | None) -> float | None:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(created).timestamp() if created else None
    return None


def _read_cache(path: Path) -> dict[str, tuple[str, Summary]]:
    """Read the kept summaries by their directories; none of a file that is damaged or of another version."""
    try:
        raw = json.loads(read_text(path))
        if raw["schema"] != _SCHEMA:
            return {}
        return {row["directory"]: (signature, Summary(**row)) for signature, row in raw["runs"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, TraceError):
        return {}


def _write_cache(path: Path, entries: Mapping[str, tuple[str, Summary]]) -> None:
    """Keep the summaries; if they cannot be written they are made again the next time.

    A run that goes on has none: its status changes without its files.
    """
    names = [each.name for each in fields(Summary)]
    rows = [
        (signature, {name: getattr(summary, name) for name in names})
        for signature, summary in entries.values()
        if summary.status != "running"
    ]
    with suppress(OSError):
        write_atomically(path, json.dumps({"schema": _SCHEMA, "runs": rows}, separators=(",", ":")))
