"""Finds the stages inside torchvision pipelines by itself, in the processes that make batches.

Reading is timed in a real `io.BufferedReader` over a timed `FileIO`, so that the device sees the same
requests as without us: reading a file whole and decoding it then would halve the time that is to be measured,
because PIL's chunked reads cost two device requests a file. Transforms are timed where `Compose` calls them,
and PIL's lazy decode where it happens. What the patched names do outside of a batch is unchanged.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.batch_recorder import BatchRecorder
from pipeprof.measure.emulate import is_emulated
from pipeprof.measure.mounts import counts_device_reads
from pipeprof.measure.real_storage import RecordedFile
from pipeprof.measure.recorder import DECODE, NOWHERE, READ, TRANSFORM, Mark, active, span
from pipeprof.measure.remote_requests import timed_sync, traced_session

_PATCHED: Final = "_pipeprof_patched"
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_undo: Final[list[tuple[Any, str, Any]]] = []


def install() -> None:
    """Time the stages of the libraries that are loaded in this process. Again for those loaded since."""
    for module, name, wrap in _SEAMS:
        owner = _find(module)
        if owner is None or name not in vars(owner):
            continue
        original = vars(owner)[name]
        if not hasattr(original, _PATCHED):
            wrapped = functools.wraps(original)(wrap(original))
            setattr(wrapped, _PATCHED, True)
            setattr(owner, name, wrapped)
            _undo.append((owner, name, original))


def uninstall() -> None:
    """Put everything back."""
    while _undo:
        owner, name, original = _undo.pop()
        setattr(owner, name, original)


def _find(path: str) -> Any:
    """A module that is loaded, or a class in one: "module" or "module:Class"."""
    module, _, name = path.partition(":")
    found = sys.modules.get(module)
    return getattr(found, name, None) if name else found


def _batch() -> BatchRecorder | None:
    """The batch that this thread is making."""
    sink = active()
    return sink if isinstance(sink, BatchRecorder) else None


def _timed_open(original: Callable[..., Any]) -> Callable[..., Any]:
    def open(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        batch = _batch()
        plain = (
            mode in ("rb", "br")
            and not any(rest)  # pathlib hands over encoding, errors and newline, all None
            and not any(options.values())
            and isinstance(file, (str, bytes, os.PathLike))
        )
        if batch is None or batch.current.name == READ or is_emulated(file):
            return original(file, mode, buffering, *rest, **options)
        if not plain:
            opened = original(file, mode, buffering, *rest, **options)
            if "r" in mode or "+" in mode:
                _note_device(batch, lambda: os.fstat(opened.fileno()))
            return opened
        raw = RecordedFile(file)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else getattr(raw.status, "st_blksize", 0)
        return io.BufferedReader(raw, size if size > 1 else io.DEFAULT_BUFFER_SIZE)

    return open


def _note_device(batch: BatchRecorder, status: Callable[[], os.stat_result]) -> None:
    """Note where a file lies whose reads the kernel does not count as any block device's."""
    if batch.storage_unseen:
        return
    with suppress(Exception):  # what stands for a file need not have a descriptor
        batch.storage_unseen = not counts_device_reads(status().st_dev)


def _compose_v1(original: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: Any, img: Any) -> Any:  # noqa: N807
        batch = _batch()
        if batch is None:
            return original(self, img)
        return _one_by_one(batch, self.transforms, (img,), unpack=False)

    return __call__


def _compose_v2(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, *inputs: Any) -> Any:
        batch = _batch()
        if batch is None or not self.transforms:
            return original(self, *inputs)
        return _one_by_one(batch, self.transforms, inputs, unpack=len(inputs) > 1)

    return forward


def _one_by_one(batch: BatchRecorder, transforms: Any, inputs: tuple[Any, ...], unpack: bool) -> Any:
    """Apply and time each of `transforms`: what a `span` around each would record, with one reading of the
    clock between two of them, since these are the most spans of an image pipeline by far."""
    outputs: Any = inputs[0]
    if not batch.plain:
        for transform in transforms:
            with span(_mark_of(transform).name):
                outputs = transform(*inputs)
            inputs = outputs if unpack else (outputs,)
        return outputs
    outer = batch.current
    then_ns = monotonic_ns()
    try:
        for transform in transforms:
            batch.current = mark = _marks.get(type(transform)) or _mark_of(transform)
            before_ns = batch.inner_ns
            outputs = transform(*inputs)
            now_ns = monotonic_ns()
            inner_ns = before_ns + now_ns - then_ns
            batch.add(mark.name, inner_ns - batch.inner_ns)
            batch.inner_ns, then_ns = inner_ns, now_ns
            inputs = outputs if unpack else (outputs,)
    finally:
        batch.current = outer
    return outputs


_marks: Final[dict[type, Mark]] = {}
"""Of the transforms that are called as their class is: not functions."""


def _mark_of(transform: Any) -> Mark:
    if isinstance(transform, functools.partial):
        return _mark_of(transform.func)
    if isinstance(transform, _FUNCTIONS):
        return Mark(TRANSFORM + transform.__name__, NOWHERE)
    kind = type(transform)
    if kind not in _marks:
        _marks[kind] = Mark(TRANSFORM + kind.__name__, NOWHERE)
    return _marks[kind]


def _decode_load(original: Callable[..., Any]) -> Callable[..., Any]:
    """PIL decodes when pixels are first asked for; later loads find no tiles left."""

    def load(self: Any) -> Any:
        batch = _batch()
        if batch is None or not getattr(self, "tile", None) or batch.current.name == DECODE:
            return original(self)
        with span(DECODE):
            return original(self)

    return load


def _decode_convert(original: Callable[..., Any]) -> Callable[..., Any]:
    """`convert` belongs to the decode where it brings a file's pixels to RGB, not inside a transform."""

    def convert(self: Any, *arguments: Any, **options: Any) -> Any:
        batch = _batch()
        if batch is None or batch.current.name == DECODE or batch.current.name.startswith(TRANSFORM):
            return original(self, *arguments, **options)
        with span(DECODE):
            return original(self, *arguments, **options)

    return convert


def _whole(owner: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that is one stage from beginning to end; a reader gives an array or a tensor."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            batch = _batch()
            if batch is None or batch.current.name == owner:
                return original(*arguments, **options)
            with span(owner) as timing:
                result = original(*arguments, **options)
                if owner == READ:
                    timing.bytes = result.nbytes
                    if arguments and isinstance(arguments[0], (str, bytes, os.PathLike)):
                        _note_device(batch, lambda: Path(os.fsdecode(arguments[0])).stat())
                return result

        return timed

    return wrap


_SEAMS: Final[tuple[tuple[str, str, Callable[[Callable[..., Any]], Callable[..., Any]]], ...]] = (
    (builtins.__name__, "open", _timed_open),  # ImageFolder's loader, PIL's Image.open(path), numpy.load
    (io.__name__, "open", _timed_open),  # pathlib
    ("tarfile", "bltn_open", _timed_open),  # took it by another name
    ("torchvision.transforms.transforms:Compose", "__call__", _compose_v1),
    ("torchvision.transforms.v2._container:Compose", "forward", _compose_v2),
    ("PIL.ImageFile:ImageFile", "load", _decode_load),
    ("PIL.Image:Image", "convert", _decode_convert),
    ("numpy", "fromfile", _whole(READ)),  # numpy.load goes past the file object with it
    # torchvision's own readers look these up when they are called
    ("torchvision.io.image", "read_file", _whole(READ)),
    ("torchvision.io.image", "decode_image", _whole(DECODE)),
    ("torchvision.io.image", "decode_jpeg", _whole(DECODE)),
    ("torchvision.io.image", "decode_png", _whole(DECODE)),
    ("fsspec.asyn", "sync", timed_sync),
    ("s3fs.core", "sync", timed_sync),  # these took the function by its name
    ("gcsfs.core", "sync", timed_sync),
    ("adlfs.spec", "sync", timed_sync),
    ("aiohttp.client:ClientSession", "__init__", traced_session),
)
"""Where to look, what to replace, by what. Readers written in C that are not here stay in `getitem`."""
