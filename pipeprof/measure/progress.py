"""Progress of what takes its time: a bar on a terminal, a plain line every few seconds elsewhere.

rich is imported where a bar is drawn: its import draws from Python's random numbers, whose state is the
program's that is observed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_LINE_EVERY_S: Final = 5.0


def say(line: str) -> None:
    """Print one line on standard error. A program may have closed it."""
    with suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `done(count)`, to be called with how many of `total` are done. Writes to standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.update(task, completed=count)


def _lines(title: str, total: int) -> Callable[[int], None]:
    """Print a line every `_LINE_EVERY_S` seconds, the first after as long: what is quick needs none."""
    next_line_s = time.monotonic() + _LINE_EVERY_S

    def done(count: int) -> None:
        nonlocal next_line_s
        if time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + _LINE_EVERY_S
            say(f"{title}: {count} of {total}")

    return done
