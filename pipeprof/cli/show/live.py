"""`pipeprof live RUN|PID`: a run while it is written, from another terminal."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeprof.errors import TraceError

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis
    from pipeprof.analyse.live.run import LiveRun

EVERY_S: Final = 1.0
LONGEST_S: Final = 15.0
BUDGET: Final = 0.01
"""Share of a core that the analyses take: each waits for a hundred times what the last one cost."""


@click.command()
@click.option("--window", type=click.FloatRange(min=1), default=30.0, help="Seconds to look back; 30.")
@click.option("--for", "seconds", type=click.FloatRange(min=0), help="Stop after so many seconds.")
@click.argument("what", metavar="RUN|PID")
def command(window: float, seconds: float | None, what: str) -> None:
    """Show RUN, or the run that process PID writes, while it is written.

    On a terminal: the verdict of the last 30 s, where the time went, and the workers. Piped: a line a second.
    """
    from pipeprof.analyse.live.run import LiveRun

    live = LiveRun(_directory(what), window)
    if live.run.status != "running":
        raise TraceError(
            f"{live.directory} has ended: {live.run.status}",
            f"show it with: pipeprof report {live.directory}",
        )
    show = _page if sys.stdout.isatty() else _lines
    with suppress(KeyboardInterrupt):
        show(live, None if seconds is None else time.monotonic() + seconds)


def _directory(what: str) -> Path:
    from pipeprof.record.remote.incoming import mirror
    from pipeprof.record.remote.places import is_url

    if is_url(what):
        return mirror(what)
    if not what.isdecimal() or Path(what).exists():
        return Path(what)
    written = set()
    with suppress(OSError):
        for fd in Path(f"/proc/{what}/fd").iterdir():
            with suppress(OSError):
                target = fd.readlink()
                if target.suffix == ".arrows":
                    written.add(target.parent)
    if len(written) == 1:
        return written.pop()
    if written:
        raise TraceError(
            f"process {what} writes {len(written)} runs", f"give one: {sorted(map(str, written))[0]}"
        )
    raise TraceError(
        f"process {what} writes no run that can be seen",
        f"observe it first, as with: pipeprof attach {what}",
    )


class _Analyses:
    """Analyses the window as often as the budget allows."""

    def __init__(self, live: LiveRun, clock: Callable[[], float] = time.monotonic) -> None:
        self._live, self._clock = live, clock
        self._next_s = 0.0
        self.newest: Analysis | None = None

    def look(self) -> None:
        """Analyse the window, where it is time."""
        if self._clock() < self._next_s:
            return
        began_s = time.thread_time()
        self.newest = self._live.analyse()
        cost_s = time.thread_time() - began_s
        self._next_s = self._clock() + min(LONGEST_S, max(EVERY_S, cost_s / BUDGET))


def _lines(live: LiveRun, until_s: float | None) -> None:
    from pipeprof.report.text.live import line

    analyses = _Analyses(live)
    going = True
    while going and (until_s is None or time.monotonic() < until_s):
        going = live.poll()
        if live.all.steps and going:
            analyses.look()
            click.echo(line(live, analyses.newest))
        time.sleep(EVERY_S)


def _page(live: LiveRun, until_s: float | None) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from pipeprof.report.text.live import page

    analyses, console = _Analyses(live), Console()
    of_all, with_workers, going = False, True, True
    with _keys() as pressed, Live(console=console, auto_refresh=False, screen=False) as display:
        while going and (until_s is None or time.monotonic() < until_s):
            going = live.poll()
            if live.all.steps and going:
                analyses.look()
            lines = page(live, analyses.newest, of_all, with_workers, console.width)
            display.update(Group(*lines), refresh=True)
            key = pressed(EVERY_S)
            of_all, with_workers = of_all != (key == "a"), with_workers != (key == "w")
            going = going and key != "q"


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for a key, so many seconds; "" where none came."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
