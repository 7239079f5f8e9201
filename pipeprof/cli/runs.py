"""Run arguments and output files of the verbs that read runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from pipeprof import units
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError, TraceError
from pipeprof.record.schema import REPORT_HTML, RUN_JSON

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis
    from pipeprof.record.meta import RunMeta
    from pipeprof.record.reader import Run
    from pipeprof.report.run_list import Entry
    from pipeprof.simulate.forecast import Forecast


class RunDirectory(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """A run: its directory, its URL, its number in `pipeprof list`, its name, or `newest`."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return its directory; a path that is not a run is left to the reader to refuse."""
        return value if isinstance(value, Path) else find_run(str(value))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the runs here whose directory or name begins so, and the shell's own paths."""
        from pipeprof.record.directories import RUNS

        words = {word for entry in _known(RUNS) for word in (str(entry.directory), entry.name)}
        found = sorted(word for word in words if word.startswith(incomplete))
        return [CompletionItem(word) for word in found] + [CompletionItem(incomplete, type="file")]


NEWEST: Final = "newest"


def find_run(given: str) -> Path:
    """Return the directory of the run that is asked for: path, URL, number of `pipeprof list`, or name.

    If several have one name, it is the newest. Raises `TraceError` if nothing in `runs/` is meant, and for a
    directory that only holds runs of its own.
    """
    from pipeprof.record.directories import RUNS
    from pipeprof.record.remote.incoming import mirror
    from pipeprof.record.remote.places import is_url

    if is_url(given):
        return mirror(given)
    path = Path(given)
    if given != NEWEST and path.exists():
        _refuse_shelf(path)
        return path
    known = _known(RUNS)
    if given == NEWEST and known:
        return known[0].directory
    if given.isdecimal() and 1 <= int(given) <= len(known):
        return known[int(given) - 1].directory
    for entry in known:
        if given in (entry.name, entry.directory.name):
            return entry.directory
    if given == NEWEST:
        raise TraceError(f"there is no run in {RUNS}/", "make one with `pipeprof trace train.py`")
    hint = f"newest here: {known[0].directory}; `pipeprof list` shows all" if known else "give its directory"
    raise TraceError(f"there is no run {given}", hint)


def _known(directory: Path) -> list[Entry]:
    from pipeprof.report.run_list import entries

    return entries(directory) if directory.is_dir() else []


def _refuse_shelf(path: Path) -> None:
    """Refuse a directory that is not a run, a job or a matrix: one that contains runs, or none."""
    from pipeprof.record.directories import RUNS, attempts, parts, processes

    if not path.is_dir() or (path / RUN_JSON).exists() or parts(path) or processes(path) or attempts(path):
        return
    known = _known(path)
    if not known and (here := _known(RUNS)):
        raise TraceError(f"{path} holds no run", f"the newest here is {here[0].directory}")
    if known and not any(entry.cell for entry in known):
        raise TraceError(
            f"{path} is not a run; it holds {units.plural(len(known), 'run')}",
            f"the newest is {known[0].directory}; `pipeprof list {path}` shows all",
        )


def _chosen(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:
    """Take the newest run if none is given, and say on standard error which one that is."""
    if value is not None:
        return value
    newest = find_run(NEWEST)
    say(f"pipeprof: {newest}, the newest run", err=True)
    return newest


run_argument = click.argument("run", metavar="[RUN]", required=False, type=RunDirectory(), callback=_chosen)
"""A run, handed to the command as `run: Path`: its directory, its number in `pipeprof list`, or its name; the
newest by default."""


def with_newest(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return at least two runs to compare: those given, else the newest ones, the oldest first.

    Raises `TraceError` if there are too few.
    """
    from pipeprof.record.directories import RUNS

    given = {run.absolute() for run in runs}
    newest = [entry.directory for entry in _known(RUNS) if entry.directory.absolute() not in given]
    missing = max(0, 2 - len(runs))
    if len(newest) < missing:
        raise TraceError(f"there are no two runs in {RUNS}/ to compare", "give two runs")
    chosen = newest[:missing][::-1]
    if chosen:
        say(f"pipeprof: {' and '.join(map(str, (*runs, *chosen)))}", err=True)
    return (*runs, *chosen)


class Share(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """`5%` or `0.05`, from 0 to 1; with `between`, neither 0 nor 1."""

    name = "share"

    def __init__(self, between: bool = False) -> None:
        self._between = between

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number."""
        try:
            share = units.share(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._between and share in (0, 1):
            self.fail(f"{value!r} is not a share between 0 and 1: give 5% or 0.05", param, ctx)
        return share


share_option = click.option(
    "--share",
    is_flag=True,
    help="Make it safe to share: replace names of users and machines, and home directories.",
)
"""`--share`, handed to the command as `share: bool`."""


def opener(share: bool) -> Callable[[Path], Run]:
    """Return the function that opens runs: with `share` the names of users and machines are replaced."""
    from pipeprof.record.reader import load
    from pipeprof.report.sharing import Sharing

    return Sharing().open if share else load


def read(path: Path, loader: str | None = None, open_run: Callable[[Path], Run] | None = None) -> Analysis:
    """Open and analyse a run, or one loader of it. Raises `TraceError` if there is none."""
    from pipeprof.analyse.analysis import analyse

    return analyse((open_run or opener(False))(path), loader)


def forecast(
    path: Path, loader: str | None = None, open_run: Callable[[Path], Run] | None = None
) -> Forecast:
    """Open and analyse a run, ready to be predicted from while there is time for it.

    Raises `TraceError` if there is none.
    """
    from pipeprof.simulate.forecast import PAGE_LIMIT_S, Forecast

    return Forecast(read(path, loader, open_run), limit_s=PAGE_LIMIT_S)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into the one clear error."""
    try:
        yield
    except OSError as error:
        raise PipeprofError(f"cannot write {path}: {error.strerror}", "choose another place") from error


def report_run(directory: Path, page: bool, quiet: bool, verbose: bool = False) -> None:
    """Print the verdict of a run of the user's program, and write its page. Prints failures; raises none."""
    from pipeprof.record.remote.outgoing import address
    from pipeprof.report.text import terminal

    try:
        answer = forecast(directory)
        path = written_page(answer, directory / REPORT_HTML) if page else None
        if not quiet:
            # a file of its own: a signal may have come while the program was writing to standard error
            with open(os.dup(2), "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                terminal.show(answer, None if path is None else address(path), file, in_full=verbose)
    except (PipeprofError, OSError) as error:
        say(f"pipeprof: {directory} cannot be reported: {error}", err=True)


_LOOKED_AT: Final = 20
"""Earlier runs among which the one without the change is looked for."""


def print_comparison(directory: Path) -> None:
    """Say on standard error how to compare a run that tried a change with the newest one of the same program.

    Nothing is said if the run tried none, or there is no other.
    """
    earlier = before_change(directory)
    if earlier is not None:
        before, now = (shlex.quote(str(short(each.absolute()))) for each in (earlier, directory))
        say(f"Compare: pipeprof compare {before} {now}", err=True)


def before_change(directory: Path) -> Path | None:
    """Return the newest run of the same program other than one that tried a change; None without one."""
    from pipeprof.record.reader import load
    from pipeprof.report.run_list import entries

    try:
        meta = load(directory).meta
    except TraceError:
        return None
    if not _tries(meta) or not meta.program:
        return None
    for entry in entries(directory.parent, 1)[:_LOOKED_AT]:
        if entry.directory.absolute() == directory.absolute() or entry.ranks or entry.cell:
            continue
        with suppress(TraceError):
            other = load(entry.directory).meta
            if other.program == meta.program and not _tries(other):
                return entry.directory
    return None


def _tries(meta: RunMeta) -> bool:
    """Return True if a run's command changed its program's loaders."""
    return any(word.partition("=")[0] in {"--set", "--try"} for word in meta.own_words)


def written_page(answer: Forecast, path: Path) -> Path | None:
    """Write the page; return None if there is no room for it: the verdict needs none."""
    from pipeprof.report.page import html

    try:
        return html.write(answer, path)
    except OSError as error:
        say(f"pipeprof: {path} was not written: {error}", err=True)
        return None


def short(path: Path) -> Path:
    """Return the path relative to the working directory if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
