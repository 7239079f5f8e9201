"""OpenCV: reading and decoding of pictures, resizing and conversion of colours; pixels decoded and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipeprof.measure.probe.adapters.staged import TRANSFORMS, Seam, called, staged
from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import opens, pixels
from pipeprof.measure.probe.spans import DECODE, NoSpan, Span


def _decoded(picture: Any, timing: Span | NoSpan) -> None:
    height, width, *_ = picture.shape  # None if there is no picture
    pixels.note_decoded(width, height)


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    timed = staged(called(DECODE), _decoded)(original)

    def imread(*arguments: Any, **options: Any) -> Any:
        if arguments and active_batch() is not None:
            opens.note_opened(arguments[0])
        return timed(*arguments, **options)

    return imread


def _resizing(original: Callable[..., Any]) -> Callable[..., Any]:
    timed = staged(called(TRANSFORMS + "resize"), outermost=True)(original)

    def resize(*arguments: Any, **options: Any) -> Any:
        result = timed(*arguments, **options)
        if active_batch() is not None and arguments and _is_picture(arguments[0]) and _is_picture(result):
            before, after = (each.shape[0] * each.shape[1] for each in (arguments[0], result))
            pixels.note_left(after, before)
        return result

    return resize


def _is_picture(array: Any) -> bool:
    return len(getattr(array, "shape", ())) >= 2


SEAMS: Final[tuple[Seam, ...]] = (
    ("cv2", "imread", _reading),
    ("cv2", "imdecode", staged(called(DECODE), _decoded)),
    ("cv2", "resize", _resizing),
    ("cv2", "cvtColor", staged(called(TRANSFORMS + "cvtColor"), outermost=True)),
)
