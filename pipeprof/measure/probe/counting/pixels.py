"""Counts pixels that were decoded, and those that are left after the crops and resizes of each picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.record.names import counters


class _Sample:
    """The pictures of the sample that the one thread that makes batches is at."""

    shrinks = 0
    """Crops and resizes that were seen so far; it only grows."""
    shrunk = False
    """True if there were some since the last picture was decoded."""
    last = 0
    """Pixels that the last of them left."""
    waiting = 0
    """Pictures that were decoded, and neither cropped nor resized."""
    left: Final[Counter[int]] = Counter()
    """By size in pixels: how many pictures stand as left with it."""


def note_decoded(width: int, height: int) -> None:
    """Count a picture that has been decoded."""
    if _Sample.shrunk:  # the next sample, or this one's next picture: those before are done with
        _Sample.shrunk, _Sample.waiting = False, 0
        _Sample.left.clear()
    _Sample.waiting += 1
    tally.add(counters.PICTURES)
    tally.add(counters.PIXELS, width * height)


def note_left(pixels: int, before: int) -> None:
    """Count what a crop or resize has left of a picture of `before` pixels; the last one counts."""
    _Sample.shrinks += 1
    _Sample.shrunk, _Sample.last = True, pixels
    if _Sample.left[before] > 0:
        _Sample.left[before] -= 1
        tally.add(counters.PIXELS_LEFT, pixels - before)
    elif _Sample.waiting > 0:
        _Sample.waiting -= 1
        tally.add(counters.SHRUNK_PICTURES)
        tally.add(counters.PIXELS_LEFT, pixels)
    else:
        return  # it was not decoded where we look, but made by the user's code
    _Sample.left[pixels] += 1


def shrinks() -> int:
    """Return how many crops and resizes were seen so far."""
    return _Sample.shrinks


def note_output(output: Any, shrinks_before: int) -> None:
    """Count what a pipeline has left of a picture, if none of its crops and resizes was seen."""
    if _Sample.waiting == 0 or _Sample.shrinks != shrinks_before:
        return
    with suppress(Exception):  # the last transform may return anything
        *_, height, width = output.shape
        note_left(int(width) * int(height), before=-1)


def _pillow(original: Callable[..., Any]) -> Callable[..., Any]:
    def shrink(self: Any, *arguments: Any, **options: Any) -> Any:
        if active_batch() is None:
            return original(self, *arguments, **options)
        seen, before = _Sample.shrinks, self.size
        result = original(self, *arguments, **options)
        width, height = getattr(result, "size", None) or self.size  # `thumbnail` changes the picture itself
        if _Sample.shrinks == seen:
            note_left(width * height, before[0] * before[1])
        elif width * height != _Sample.last:  # it has called others of these, and done the rest itself
            note_left(width * height, _Sample.last)
        return result

    return shrink


def _framed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Count a frame that is decoded, wanted or not: those before the wanted one are decoded for it."""

    def next_frame(self: Any) -> Any:
        result = original(self)
        if active_batch() is not None:
            tally.add(counters.FRAMES)
        return result

    return next_frame


SEAMS: Final = (
    ("PIL.WebPImagePlugin:WebPImageFile", "_get_next", _framed),
    ("PIL.Image:Image", "crop", _pillow),
    ("PIL.Image:Image", "resize", _pillow),
    ("PIL.Image:Image", "reduce", _pillow),
    ("PIL.Image:Image", "thumbnail", _pillow),
)
"""Module and class, name, and what replaces it, as in `auto_stages`."""
