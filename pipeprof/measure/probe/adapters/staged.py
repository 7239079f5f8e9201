"""Makes the wrapper that times a function of a library as one stage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.spans import NoSpan, Span, span
from pipeprof.vocabulary import owners

TRANSFORMS: Final = owners.TRANSFORM.called("")
"""Begins the names of transforms' stages; kept here, since each sample asks."""
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Seam = tuple[str, str, Wrap]
Note = Callable[[Any, Span | NoSpan], None]
"""Notes what is seen of a call: takes its result and its span."""


def staged(name: Callable[[tuple[Any, ...]], str], note: Note | None = None, outermost: bool = False) -> Wrap:
    """Make a wrapper that times a function while a batch is made, as the stage `name(arguments)`.

    With `outermost` it is not a stage of its own inside another transform, but a part of that one. What
    `note` raises about a result that it does not know is dropped.
    """

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            batch = active_batch()
            if batch is None:
                return original(*arguments, **options)
            stage, around = name(arguments), batch.current.name
            if stage == around or (outermost and around.startswith(TRANSFORMS)):
                result = original(*arguments, **options)
                _note(note, result, _NOT_TIMED)
                return result
            with span(stage) as timing:
                result = original(*arguments, **options)
                _note(note, result, timing)
                return result

        return timed

    return wrap


_NOT_TIMED: Final = NoSpan()


def _note(note: Note | None, result: Any, timing: Span | NoSpan) -> None:
    if note is not None:
        with suppress(Exception):
            note(result, timing)


def called(stage: str) -> Callable[[tuple[Any, ...]], str]:
    """Name every call alike."""
    return lambda arguments: stage


_names: Final[dict[type, str]] = {}


def transform_of_first(arguments: tuple[Any, ...]) -> str:
    """Name a call as the transform that its first argument is, by its class."""
    kind = type(arguments[0]) if arguments else object
    known = _names.get(kind)
    if known is None:
        known = _names[kind] = TRANSFORMS + kind.__name__
    return known
