"""How the verbs that read runs take them, and write what they make of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeprof.errors import PipeprofError

if TYPE_CHECKING:
    from pipeprof.simulate.answer import Answer

run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
"""One run directory, handed to the command as `run: Path`."""


class Share(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """`5%` or `0.05`, from 0 to 1; with `between`, neither 0 nor 1."""

    name = "share"

    def __init__(self, between: bool = False) -> None:
        self._between = between

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share as a number."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1 or (self._between and share in (0, 1)):
            self.fail(f"{value!r} is no share: give 5% or 0.05", param, ctx)
        return share


def read(path: Path) -> Answer:
    """Open, analyse and predict from a run. Raises `TraceError` where there is none."""
    from pipeprof.simulate.answer import load

    return load(path)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into the one clear error."""
    try:
        yield
    except OSError as error:
        raise PipeprofError(f"cannot write {path}: {error.strerror}", "choose another place") from error
