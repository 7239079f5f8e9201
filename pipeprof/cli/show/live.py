"""`pipeprof live RUN|PID`: a run while it is written, from another terminal."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.errors import TraceError
from pipeprof.record.schema import STREAM_SUFFIX

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pipeprof.analyse.live.budget import Analyses
    from pipeprof.analyse.live.job import LiveJob
    from pipeprof.report.text.live import ShownRun


@click.command()
@click.option(
    "--window", type=click.FloatRange(min=1), default=30.0, help="Seconds to look back (default: 30)."
)
@click.option("--for", "seconds", type=click.FloatRange(min=0), help="Stop after this many seconds.")
@click.argument("what", metavar="RUN|PID")
def command(window: float, seconds: float | None, what: str) -> None:
    """Show RUN, or the run that process PID writes, while it is written; a job's ranks side by side.

    On a terminal: the verdict on the last 30 s, where the time went, and the workers. When piped: one line a
    second.
    """
    from pipeprof.analyse.live.job import LiveJob

    job = LiveJob(_directory(what), window)
    states = {live.run.status for live in job.runs.values()}
    if "running" not in states:
        raise TraceError(
            f"{job.directory} has ended: {', '.join(sorted(states))}",
            f"show it with: pipeprof report {job.directory}",
        )
    show = _page if sys.stdout.isatty() else _lines
    with suppress(KeyboardInterrupt):
        show(job, None if seconds is None else time.monotonic() + seconds)


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
                if target.suffix == STREAM_SUFFIX:
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


def _parts(job: LiveJob, analyses: Analyses) -> list[ShownRun]:
    from pipeprof.report.text.live import ShownRun

    return [ShownRun(name, live, analyses.of(live)) for name, live in job.runs.items()]


def _look(job: LiveJob, analyses: Analyses) -> None:
    """Analyse the next run that has steps, if it is time."""
    analyses.look([live for live in job.runs.values() if live.all.steps and live.run.status == "running"])


def _lines(job: LiveJob, until_s: float | None) -> None:
    from pipeprof.analyse.live.budget import EVERY_S, Analyses
    from pipeprof.report.text.live import line

    going, analyses = job.poll(), Analyses()
    while going and (until_s is None or time.monotonic() < until_s):
        _look(job, analyses)
        if any(live.all.steps for live in job.runs.values()):
            click.echo(line(_parts(job, analyses)))
        time.sleep(EVERY_S)
        going = job.poll()


def _page(job: LiveJob, until_s: float | None) -> None:
    from rich.console import Console

    from pipeprof.analyse.live.budget import EVERY_S, Analyses
    from pipeprof.report.text.live import page

    going, analyses, screen = job.poll(), Analyses(), _Screen(Console())
    chosen, of_all, with_workers = 0, False, True
    with _keys() as pressed:
        while going and (until_s is None or time.monotonic() < until_s):
            _look(job, analyses)
            width = screen.console.width
            screen.draw(page(_parts(job, analyses), chosen, of_all, with_workers, width))
            key = pressed(EVERY_S)
            chosen += key == "n"
            of_all, with_workers = of_all != (key == "a"), with_workers != (key == "w")
            going = job.poll() and key != "q"


class _Screen:
    """The page on a terminal: a row that stays the same is not written again."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._drawn: list[str] = []
        self._rendered: dict[tuple[str, str], str] = {}
        self._width = console.width

    def draw(self, rows: list[Text]) -> None:
        """Draw the rows in the place of those that were drawn before."""
        if self._width != self.console.width:  # what was drawn has been wrapped anew
            self._width, self._drawn = self.console.width, []
        fitting = rows[: max(1, self.console.height - 1)]
        keys = [(row.plain, str(row.style)) for row in fitting]
        known = self._rendered
        self._rendered = {
            key: known.get(key) or self._text_of(row) for key, row in zip(keys, fitting, strict=True)
        }
        texts = [self._rendered[key] for key in keys]
        written = [f"\x1b[{len(self._drawn)}F" if self._drawn else ""]
        for number, text in enumerate(texts):
            before = self._drawn[number] if number < len(self._drawn) else None
            written.append("\n" if text == before else f"\x1b[2K{text}\n")
        written.append("\x1b[J")
        sys.stdout.write("".join(written))
        sys.stdout.flush()
        self._drawn = texts

    def _text_of(self, row: Text) -> str:
        with self.console.capture() as captured:
            self.console.print(row, end="", crop=True, no_wrap=True, soft_wrap=True)
        return captured.get()


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
