"""Finds the stages inside torchvision pipelines by itself, in the processes that make batches.

Transforms are timed where `Compose` calls them, PIL's lazy decode where it happens, and files as they are
read. What the patched names do outside of a batch is unchanged.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe import adapters
from pipeprof.measure.probe.batch import BatchRecorder, active_batch
from pipeprof.measure.probe.counting import opens, pixels, skips, sockets
from pipeprof.measure.probe.files import note_device, patch_open
from pipeprof.measure.probe.patches import patch, release
from pipeprof.measure.probe.remote_requests import timed_sync, traced_session
from pipeprof.measure.probe.spans import DECODE, NOWHERE, READ, Mark, span
from pipeprof.vocabulary import owners

_HOLDER: Final = "stages"
_TRANSFORMS: Final = owners.TRANSFORM.called("")
"""Begins the names of transforms' stages; kept here, since each sample asks."""
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def install() -> None:
    """Time the stages of the libraries that are loaded in this process. Again for those loaded since."""
    patch_open(_HOLDER)
    for module, name, wrap in _SEAMS:
        owner = _loaded(module)
        if owner is not None and hasattr(owner, name):
            patch(_HOLDER, owner, name, wrap)


def uninstall() -> None:
    """Put everything back."""
    release(_HOLDER)


def _loaded(path: str) -> Any:
    """Return a module that is loaded, or a class in one: "module" or "module:Class"; else None."""
    module, _, name = path.partition(":")
    loaded = sys.modules.get(module)
    return getattr(loaded, name, None) if name else loaded


def _compose_v1(original: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: Any, img: Any) -> Any:  # noqa: N807
        batch = active_batch()
        if batch is None:
            return original(self, img)
        return _one_by_one(batch, self.transforms, (img,), unpack=False)

    return __call__


def _compose_v2(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, *inputs: Any) -> Any:
        batch = active_batch()
        if batch is None or not self.transforms:
            return original(self, *inputs)
        return _one_by_one(batch, self.transforms, inputs, unpack=len(inputs) > 1)

    return forward


def _one_by_one(batch: BatchRecorder, transforms: Any, inputs: tuple[Any, ...], unpack: bool) -> Any:
    """Apply and time each of `transforms`: what a `span` around each would record, with one reading of the
    clock between two of them, since these are the most spans of an image pipeline by far."""
    outputs: Any = inputs[0]
    shrinks = pixels.shrinks()
    if not batch.plain:
        for transform in transforms:
            with span(_mark_of(transform).name):
                outputs = transform(*inputs)
            inputs = outputs if unpack else (outputs,)
        pixels.note_output(outputs, shrinks)
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
    pixels.note_output(outputs, shrinks)
    return outputs


_marks: Final[dict[type, Mark]] = {}
"""Marks of the transforms that are called as their class is: not functions."""


def _mark_of(transform: Any) -> Mark:
    if isinstance(transform, functools.partial):
        return _mark_of(transform.func)
    if isinstance(transform, _FUNCTIONS):
        return Mark(_TRANSFORMS + transform.__name__, NOWHERE)
    kind = type(transform)
    if kind not in _marks:
        _marks[kind] = Mark(_TRANSFORMS + kind.__name__, NOWHERE)
    return _marks[kind]


def _decode_load(original: Callable[..., Any]) -> Callable[..., Any]:
    """Time PIL's decode, which happens when pixels are first asked for; later loads find no tiles left."""

    def load(self: Any) -> Any:
        batch = active_batch()
        if batch is None or not getattr(self, "tile", None):
            return original(self)
        if batch.current.name == DECODE:
            result = original(self)
        else:
            with span(DECODE):
                result = original(self)
        pixels.note_decoded(*self.size)
        return result

    return load


def _decode_convert(original: Callable[..., Any]) -> Callable[..., Any]:
    """Time `convert` as decode where it brings a file's pixels to RGB, not inside a transform."""

    def convert(self: Any, *arguments: Any, **options: Any) -> Any:
        batch = active_batch()
        if batch is None or batch.current.name == DECODE or batch.current.name.startswith(_TRANSFORMS):
            return original(self, *arguments, **options)
        with span(DECODE):
            return original(self, *arguments, **options)

    return convert


def _whole(owner: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a wrapper that times a function as one stage; a reader returns an array or a tensor."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            batch = active_batch()
            if batch is None or batch.current.name == owner:
                return original(*arguments, **options)
            with span(owner) as timing:
                result = original(*arguments, **options)
                if owner == DECODE:
                    pixels.note_decoded(result.shape[-1], result.shape[-2])
                if owner == READ:
                    timing.bytes = result.nbytes
                    if arguments and isinstance(arguments[0], (str, bytes, os.PathLike)):
                        note_device(batch, lambda: Path(os.fsdecode(arguments[0])).stat())
                return result

        return timed

    return wrap


_SEAMS: Final[tuple[tuple[str, str, Callable[[Callable[..., Any]], Callable[..., Any]]], ...]] = (
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
    *opens.SEAMS,
    *pixels.SEAMS,
    *skips.SEAMS,
    *sockets.SEAMS,
    *adapters.SEAMS,
)
"""Places to patch: module, name, replacement. Readers in C that are not listed here stay in `getitem`."""
