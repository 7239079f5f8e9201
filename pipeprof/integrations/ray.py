"""Observation of the workers of Ray Train: each writes its part of the job, below Ray's storage path."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import MeasureError

_HOLDER: Final = "ray"
_SCHEMES: Final = {"s3": "s3", "gcs": "gs", "abfs": "abfs"}
"""Types of pyarrow's file systems, and the schemes of fsspec for the same places."""


def observed(train_loop: Callable[..., Any], out: str | None = None) -> Callable[..., Any]:
    """Return the training loop of a `TorchTrainer` with all its DataLoaders and data shards observed.

    Each worker writes its part of the job to `out`, a directory or a URL that all of them reach, by default
    to `pipeprof` in the experiment's directory of Ray's storage path; `pipeprof report` shows it. Of
    `iter_torch_batches` and `iter_batches` the waits are observed: what makes the batches are Ray's tasks.

        trainer = TorchTrainer(observed(train_loop), scaling_config=ScalingConfig(num_workers=4))
    """

    @functools.wraps(train_loop)  # Ray looks at the loop's parameters
    def loop(*arguments: Any, **keywords: Any) -> Any:
        with _observation(out or _in_storage()):
            return train_loop(*arguments, **keywords)

    return loop


@contextmanager
def _observation(out: str | Path) -> Iterator[None]:
    """Observe all loaders of this process while the block lasts; the run is whole, and sent, at its end."""
    from pipeprof.measure.session.processes.trial import TriedChanges, Trying
    from pipeprof.measure.session.run_meta import status_of
    from pipeprof.measure.session.session import Session

    session = Session(out, "trace", "Ray Train")
    error: BaseException | None = None
    trying = Trying(TriedChanges(), lambda: session)
    try:
        with _data_shards(session):
            yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        trying.end()
        session.close(status_of(error), error=error)
        session.wait_until_sent()


@contextmanager
def _data_shards(session: Any) -> Iterator[None]:
    """Observe what Ray Data's iterators give while the block lasts."""
    try:
        from ray.data import DataIterator
    except ImportError:  # Ray without its data part
        yield
        return
    from pipeprof.measure.probe.patches import patch, release
    from pipeprof.measure.session.iterables import ObservedIterable, inside_unseen

    def observing(original: Callable[..., Any]) -> Callable[..., Any]:
        def batches(*arguments: Any, **keywords: Any) -> Any:
            made = original(*arguments, **keywords)
            session.add_unseen(inside_unseen(made))
            return ObservedIterable(made, session, loaders_inside=False)

        return batches

    for name in ("iter_batches", "iter_torch_batches"):
        patch(_HOLDER, DataIterator, name, observing)
    try:
        yield
    finally:
        release(_HOLDER)


def _in_storage() -> str | Path:
    """Return the place below the experiment's directory of Ray's storage path.

    Raises `MeasureError` outside a worker of Ray Train, and for a storage that fsspec does not know.
    """
    try:
        from ray.train import get_context

        storage = get_context().get_storage()
        kind, path = storage.storage_filesystem.type_name, storage.experiment_fs_path
    except Exception as error:  # Ray raises several kinds outside its workers
        raise MeasureError(
            "this is not a worker of Ray Train",
            "give the loop to a TorchTrainer, or call observed(loop, out=…)",
        ) from error
    if kind == "local":
        return Path(path) / "pipeprof"
    if kind in _SCHEMES:
        return f"{_SCHEMES[kind]}://{path}/pipeprof"
    raise MeasureError(f"Ray's storage is a {kind} file system", "call observed(loop, out=…)")
