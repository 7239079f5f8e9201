"""PyAV: the decoding of frames, which happens one by one as they are requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from pipeprof.measure.probe.adapters.staged import Seam
from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import pixels
from pipeprof.measure.probe.spans import DECODE, span


def _decoding(original: Callable[..., Any]) -> Callable[..., Any]:
    def decode(*arguments: Any, **options: Any) -> Any:
        frames = original(*arguments, **options)
        return frames if active_batch() is None else _frames(frames)

    return decode


def _frames(frames: Any) -> Iterator[Any]:
    """Give the frames, timed individually: no span stays open while the user's code has a frame."""
    try:
        while True:
            with span(DECODE):
                try:
                    frame = next(frames)
                except StopIteration:
                    return
            with suppress(Exception):  # of sound or subtitles: without a size
                pixels.note_decoded(frame.width, frame.height)
            yield frame
    finally:
        with suppress(AttributeError):
            frames.close()


SEAMS: Final[tuple[Seam, ...]] = (("av.container.input:InputContainer", "decode", _decoding),)
