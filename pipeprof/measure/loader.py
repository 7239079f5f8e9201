"""ProfiledDataLoader and profile(): torch's DataLoader, observed where it stands and never forked."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pipeprof.errors import MeasureError
from pipeprof.measure import hook
from pipeprof.measure.iterables import ObservedIterable, inside_unseen, loaders_in
from pipeprof.measure.ranks import own_directory
from pipeprof.measure.session import Session
from pipeprof.measure.session_facts import status_of
from pipeprof.measure.telemetry import Telemetry, check_rate
from pipeprof.measure.watch import LoaderWatch
from pipeprof.trace import TABLES, TraceWriter, load


class ProfiledDataLoader(DataLoader[Any]):
    """torch's DataLoader, observed: same arguments, same batches, same random numbers.

    `out` is the run directory; by default a temporary one that goes with the loader, or with the process.
    `detail="sample"` keeps every span. `session` is an observed run to join; loaders that are rebuilt from
    this one's attributes, as Lightning does, join its run. The run ends when the last of its loaders, and of
    their iterators, is gone.

    Raises what DataLoader raises, and `TraceError` where `out` cannot be written.
    """

    def __init__(
        self,
        dataset: Any,
        *arguments: Any,
        out: Path | str | None = None,
        detail: str = "batch",
        session: Session | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(dataset, *arguments, **keywords)
        self.out, self.detail = out, detail
        self.session = session or Session(out, detail=detail, held_by_loaders=True)
        self.session.hold()
        self.session.observe(self)
        watch = hook.observer_of(self)
        assert isinstance(watch, LoaderWatch)
        weakref.finalize(self, _gone, self.session, watch).atexit = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled and copied as the plain DataLoader that it is beside its run."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("out", "detail", "session")}
        return _plain, (state,)

    def summary(self) -> dict[str, float]:
        """A small flat dictionary of the run so far, for any logger: see `Session.summary`."""
        return self.session.summary()

    def verdict(self) -> dict[str, Any]:
        """What the run so far says: the dictionary of `pipeprof report --json`."""
        return verdict_of(self.session)

    def save(self, directory: Path | str) -> Path:
        """Write the run so far into `directory`, which must not hold one. Returns it."""
        return save_run(self.session, directory)


def _gone(session: Session, watch: LoaderWatch) -> None:
    """A loader is gone. One that was never iterated may have been taken apart for a new one, as Accelerate's
    `prepare` does: the run then goes on for as long as its data set is there."""
    dataset = None if watch.iterated else watch.dataset()
    if dataset is None:
        session.release()
    else:
        weakref.finalize(dataset, session.release).atexit = False


def _plain(state: dict[str, Any]) -> DataLoader[Any]:
    loader: DataLoader[Any] = DataLoader.__new__(DataLoader)
    loader.__dict__.update(state)
    return loader


@contextmanager
def profile(
    loader: Any, out: Path | str | None = None, detail: str = "batch", telemetry_hz: float = 0.0
) -> Iterator[Any]:
    """Observe a loader that exists, or anything else that is iterated, for as long as the block lasts.

    Gives a DataLoader itself, and something in place of any other iterable, with `summary`, `verdict` and
    `save` as a `ProfiledDataLoader` has them. Of an iterable the waits are observed, and of the DataLoaders
    in it all. The run is written to `out`; without it, it is gone after the block.
    `telemetry_hz` times a second it looks at CPU, memory, disks and GPUs, by default never: a look costs
    about a millisecond of CPU.

    Raises `MeasureError` for what cannot be iterated and for a rate that cannot be, `TraceError` where `out`
    cannot be written.
    """
    check_rate(telemetry_hz)
    plain = isinstance(loader, DataLoader)
    loaders = [loader] if plain else loaders_in(loader)
    unseen = [] if loaders else [inside_unseen(loader)]
    session = Session(out, detail=detail, meta={"not_observed": unseen})
    before = [(each, hook.observer_of(each)) for each in loaders]
    telemetry = Telemetry(session.telemetry, rate_hz=telemetry_hz)
    error: BaseException | None = None
    observed: Any = None
    try:
        observed = loader if plain else ObservedIterable(loader, session, bool(loaders))
        for each in loaders:
            session.observe(each)
        observed.__dict__.update(_methods(session, samples_seen=bool(loaders)))
        with telemetry:
            yield observed
    except BaseException as raised:
        error = raised
        raise
    finally:
        for name in ("summary", "verdict", "save") if observed is not None else ():
            observed.__dict__.pop(name, None)
        for each, observer in before:
            hook.restore(each, observer)
        if telemetry_hz:
            telemetry.tell(session.writer.meta)
        session.close(status_of(error), error=error)
        session.discard()


def _methods(session: Session, samples_seen: bool) -> dict[str, Any]:
    def summary() -> dict[str, float]:
        found = session.summary()
        return found if samples_seen else {k: v for k, v in found.items() if not k.startswith("samples")}

    return {
        "summary": summary,
        "verdict": lambda: verdict_of(session),
        "save": lambda directory: save_run(session, directory),
    }


def verdict_of(session: Session) -> dict[str, Any]:
    """The verdict on a session so far. Raises `MeasureError` where this install has no analysis."""
    session.flush()
    try:
        from pipeprof import load as answer

        said: dict[str, Any] = answer(session.directory).as_dict()
        return said
    except ImportError as error:
        raise MeasureError(f"the analysis cannot be imported: {error}", "reinstall pipeprof") from error


def save_run(session: Session, directory: Path | str) -> Path:
    """A copy of a session so far, complete in itself. Raises `TraceError` where it cannot be written."""
    session.flush()
    run = load(session.directory)
    target = own_directory(Path(directory))
    writer = TraceWriter(target, run.meta)
    for name in TABLES:
        table = run.table(name)
        writer.append(name, {column: table[column].combine_chunks() for column in table.column_names})
    writer.close("complete")
    return target
