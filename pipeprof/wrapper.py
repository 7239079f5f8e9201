"""ProfiledDataLoader and profile(): torch's own DataLoader, observed in place.

A room above `measure` and `analyse`: `loader.verdict()` is where measuring and analysing meet.
"""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader

from pipeprof.analyse import analysis
from pipeprof.analyse.live.run import LiveRun
from pipeprof.analyse.verdict import Verdict
from pipeprof.errors import TraceError
from pipeprof.measure.host.telemetry import Telemetry, check_rate
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.changes.construct import remember
from pipeprof.measure.session.iterables import ObservedIterable, inside_unseen, loaders_in
from pipeprof.measure.session.job import free_directory, own_directory
from pipeprof.measure.session.loader_watch import LoaderWatch
from pipeprof.measure.session.run_meta import status_of
from pipeprof.measure.session.session import Session
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.schema import TABLES
from pipeprof.record.writer import TraceWriter


class LoaderArguments(TypedDict, total=False):
    """Keyword arguments of torch's DataLoader, so that type checkers catch misspelt ones."""

    batch_size: int | None
    shuffle: bool | None
    sampler: Any
    batch_sampler: Any
    num_workers: int
    collate_fn: Callable[[list[Any]], Any] | None
    pin_memory: bool
    drop_last: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: Any
    generator: Any
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory_device: str
    in_order: bool


class ProfiledDataLoader(DataLoader[Any]):
    """torch's DataLoader, observed: same arguments, same batches, same random numbers.

    The run is written to `out`, or to `out-2`, … if `out` already holds a run, as when a notebook cell is run
    again; without `out`, to a temporary directory that is removed with the loader or at exit.
    `detail="sample"` keeps every span. With `lines`, stacks of the workers and of the loop's thread are
    sampled, so that the verdict can name lines of code. `parts_of`, `kernels` and `every_batch` are as in
    `profile`.
    `session` is an observed run to join; loaders rebuilt from this one's attributes, as Lightning does, join
    its run. The run ends when the last of its loaders and their iterators is gone.

    Raises what DataLoader raises, and `TraceError` if `out` cannot be written.
    """

    def __init__(
        self,
        dataset: Any,
        *arguments: Any,
        out: Path | str | None = None,
        detail: str = "batch",
        lines: bool = False,
        parts_of: torch.nn.Module | None = None,
        kernels: int = 0,
        every_batch: bool = False,
        session: Session | None = None,
        **keywords: Unpack[LoaderArguments],
    ) -> None:
        super().__init__(dataset, *arguments, **keywords)
        remember(self)
        self.out, self.detail = out, detail
        self.session = session or Session(
            free_directory(out),
            detail=detail,
            held_by_loaders=True,
            lines=lines,
            parts_of=parts_of,
            kernels=kernels,
            every_batch=every_batch,
        )
        self.session.hold()
        self.session.observe(self)
        watch = hook.observer_of(self)
        assert isinstance(watch, LoaderWatch)
        weakref.finalize(self, _gone, self.session, watch).atexit = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle and copy as a plain DataLoader, without the run."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("out", "detail", "session")}
        return _plain, (state,)

    def summary(self) -> dict[str, float]:
        """Return a flat dictionary of figures of the run so far, for any logger: see `Session.summary`."""
        return self.session.summary()

    def verdict(self) -> Verdict:
        """Analyse the run so far, as `pipeprof.load(RUN).verdict` does. Nothing is predicted."""
        return verdict_of(self.session)

    def recent(self) -> Verdict | None:
        """Analyse the last 30 s, at a cost that does not grow with the run: see `recent_of`."""
        return recent_of(self.session)

    def save(self, directory: Path | str) -> Path:
        """Write the run so far into `directory`, which must not hold a run. Return the directory."""
        return save_run(self.session, directory)


def _gone(session: Session, watch: LoaderWatch) -> None:
    """Release the session of a loader that was garbage-collected.

    A loader that was never iterated may have been rebuilt as another one, as Accelerate's `prepare` does: the
    run then goes on for as long as its data set lives.
    """
    dataset = None if watch.iterated else watch.dataset()
    if dataset is None:
        session.release()
    else:
        weakref.finalize(dataset, session.release).atexit = False


def _plain(state: dict[str, Any]) -> DataLoader[Any]:
    loader: DataLoader[Any] = DataLoader.__new__(DataLoader)
    loader.__dict__.update(state)
    return loader


Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class Profiled(Protocol[Batch_co]):
    """An iterable that is being observed."""

    def __iter__(self) -> Iterator[Batch_co]:
        """Iterate over the batches."""

    def summary(self) -> dict[str, float]:
        """Return a flat dictionary of figures of the run so far."""

    def verdict(self) -> Verdict:
        """Analyse the run so far."""

    def recent(self) -> Verdict | None:
        """Analyse the last 30 s of the run."""

    def save(self, directory: Path | str) -> Path:
        """Write the run so far into a directory."""


if TYPE_CHECKING:

    class ObservedLoader(DataLoader[Any], Profiled[Any]):
        """A DataLoader while `profile` observes it."""


@overload
def profile(
    loader: DataLoader[Any],
    out: Path | str | None = None,
    detail: str = "batch",
    telemetry_hz: float = 0.0,
    lines: bool = False,
    show: bool = False,
    parts_of: torch.nn.Module | None = None,
    kernels: int = 0,
    every_batch: bool = False,
) -> AbstractContextManager[ObservedLoader]: ...


@overload
def profile(
    loader: Iterable[Batch],
    out: Path | str | None = None,
    detail: str = "batch",
    telemetry_hz: float = 0.0,
    lines: bool = False,
    show: bool = False,
    parts_of: torch.nn.Module | None = None,
    kernels: int = 0,
    every_batch: bool = False,
) -> AbstractContextManager[Profiled[Batch]]: ...


@contextmanager
def profile(
    loader: Any,
    out: Path | str | None = None,
    detail: str = "batch",
    telemetry_hz: float = 0.0,
    lines: bool = False,
    show: bool = False,
    parts_of: torch.nn.Module | None = None,
    kernels: int = 0,
    every_batch: bool = False,
) -> Iterator[Any]:
    """Observe an existing loader, or any other iterable, for the duration of a `with` block.

    Yields the DataLoader itself, or a stand-in for any other iterable, with the methods `summary`, `verdict`,
    `recent` and `save` of a `ProfiledDataLoader`. For other iterables only the waits are observed, and
    DataLoaders inside them in full. The run is written to `out`, or to `out-2`, … if `out` already holds a
    run, as when a notebook cell is run again; without `out` it is discarded after the block.

    CPU, memory, disks and GPUs are sampled `telemetry_hz` times a second (default: never); each sample costs
    about a millisecond of CPU. With `lines`, stacks of the workers and of the loop's thread are sampled. With
    `show`, the verdict is printed when the block ends without an exception. `parts_of` is the model that the
    loop calls: its forward and backward passes, optimiser steps and collectives are timed on the device. The
    kernels of `kernels` steps after the first three are traced by torch.profiler, which slows them down:
    these steps and all earlier ones count as warm-up. In a long run whose batches are short next to what
    probing them costs, one of eight is probed; with `every_batch`, all are.

    Raises `MeasureError` for an object that cannot be iterated or an impossible rate, and `TraceError` if
    `out` cannot be written.
    """
    check_rate(telemetry_hz)
    plain = isinstance(loader, DataLoader)
    loaders = [loader] if plain else loaders_in(loader)
    unseen = [] if loaders else [inside_unseen(loader)]
    session = Session(
        free_directory(out),
        detail=detail,
        meta=RunMeta(not_observed=tuple(unseen)),
        lines=lines,
        parts_of=parts_of,
        kernels=kernels,
        every_batch=every_batch,
    )
    before = [(each, hook.observer_of(each)) for each in loaders]
    telemetry = Telemetry(session.telemetry, rate_hz=telemetry_hz)
    error: BaseException | None = None
    observed: Any = None
    methods = _methods(session, samples_seen=bool(loaders))
    outer: dict[str, Any] = {}
    try:
        observed = loader if plain else ObservedIterable(loader, session, bool(loaders))
        for each in loaders:
            session.observe(each)
        outer = {name: observed.__dict__[name] for name in methods if name in observed.__dict__}
        observed.__dict__.update(methods)
        with telemetry:
            yield observed
    except BaseException as raised:
        error = raised
        raise
    finally:
        for name in methods if observed is not None else ():
            observed.__dict__.pop(name, None)
        if observed is not None:
            observed.__dict__.update(outer)  # those of a block around this one
        for each, observer in before:
            hook.restore(each, observer)
        if telemetry_hz:
            session.amend(telemetry.entered)
        session.close(status_of(error), error=error)
        if show and error is None:
            print(verdict_of(session))
        session.discard()


def _methods(session: Session, samples_seen: bool) -> dict[str, Any]:
    def summary() -> dict[str, float]:
        figures = session.summary()
        return figures if samples_seen else {k: v for k, v in figures.items() if not k.startswith("samples")}

    return {
        "summary": summary,
        "verdict": lambda: verdict_of(session),
        "recent": lambda: recent_of(session),
        "save": lambda directory: save_run(session, directory),
    }


def verdict_of(session: Session) -> Verdict:
    """Analyse a session so far. Raises `TraceError` if its record cannot be read."""
    session.flush()
    return analysis.load(session.directory).verdict


_followed: Final[WeakKeyDictionary[Session, LiveRun]] = WeakKeyDictionary()
_following: Final = threading.Lock()


def recent_of(session: Session) -> Verdict | None:
    """Analyse the last 30 s of a session, as `pipeprof live` does; None before the first steps and after.

    Each call continues reading where the last one stopped. Any thread may call it.
    """
    if not session.active:
        return None
    session.flush()
    with _following:
        try:
            live = _followed.get(session)
            if live is None or live.directory != session.directory:  # it has moved to its place in a job
                live = _followed[session] = LiveRun(session.directory)
            live.poll()
            analysed = live.analyse()
        except (TraceError, OSError):  # the session ended meanwhile
            return None
    return None if analysed is None else analysed.verdict


def save_run(session: Session, directory: Path | str) -> Path:
    """Write a complete copy of a session so far. Raises `TraceError` if it cannot be written."""
    session.flush()
    run = load(session.directory)
    target = own_directory(Path(directory))
    writer = TraceWriter(target, run.meta)
    try:
        for name in TABLES:
            table = run.table(name)
            writer.append(name, {column: table[column].combine_chunks() for column in table.column_names})
        writer.close("complete")
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)  # half a copy would be taken for a run
        raise TraceError(f"cannot write {target}: {error.strerror}", "choose another directory") from error
    return target
