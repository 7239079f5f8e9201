"""`pipeprof merge DIR…`: put the parts of a job of several ranks together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.options import PathOrUrl, json_option
from pipeprof.cli.runs import opener, written
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError
from pipeprof.record.schema import REPORT_HTML, RUN_JSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeprof.analyse.job.merged import JobAnalysis
    from pipeprof.record.reader import Run


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=PathOrUrl())
@json_option
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Where to write the page (default: report.html in DIR, or next to it if DIR is a single part).",
)
def command(directories: tuple[Path, ...], as_json: bool, html: Path | None) -> None:
    """Report which rank the others waited for, and why.

    Each DIR is a directory that the ranks wrote their parts to, or one of the parts. Give several if the
    nodes wrote to disks of their own.
    """
    print_merged(directories, as_json, html or _page(directories[0]))


def _page(directory: Path) -> Path:
    """Return the path of the job's page: next to a part, whose own page must not be overwritten."""
    place = directory.resolve().parent if (directory / RUN_JSON).exists() else directory
    return place / REPORT_HTML


def print_merged(
    directories: tuple[Path, ...], as_json: bool, page: Path, open_run: Callable[[Path], Run] | None = None
) -> None:
    """Merge the ranks, write the page and print the answer; with `as_json` print JSON and nothing else."""
    from pipeprof.analyse.job.merge import merge

    merged = merge(directories, open_run or opener(False))
    if open_run is None:
        _keep(merged, directories)
    if as_json:
        say(json.dumps(merged.as_dict(), indent=2))
    else:
        show(merged, write_page(merged, page))


def _keep(merged: JobAnalysis, directories: tuple[Path, ...]) -> None:
    """Keep the answer beside the parts of a job that lie together, for `list` and `history`."""
    from pipeprof.record.choice import read_choice, write_choice
    from pipeprof.record.directories import parts

    if len(directories) == 1 and parts(directories[0]) and merged.choice != read_choice(directories[0]):
        write_choice(directories[0], merged.choice)


def write_page(merged: JobAnalysis, page: Path) -> Path:
    """Write the page of a job. Raises `PipeprofError` if it cannot be written."""
    from pipeprof.report import jobs as ranks

    with written(page):
        return ranks.write(merged, page)


def show(merged: JobAnalysis, page: Path | None) -> None:
    """Print the answer in the terminal."""
    from pipeprof.report import jobs as ranks

    for line in ranks.lines(merged, None if page is None else str(page)):
        say(line)


def report_job(directory: Path, page: bool, quiet: bool) -> None:
    """Print the answer on standard error, and write the page, for a program that has another output."""
    from pipeprof.analyse.job.merge import merge
    from pipeprof.record.remote.outgoing import address
    from pipeprof.report import jobs

    try:
        merged = merge((directory,))
        _keep(merged, (directory,))
        path = write_page(merged, directory / REPORT_HTML) if page else None
    except PipeprofError as error:
        say(f"pipeprof: {directory} was written and cannot be reported: {error}", err=True)
        return
    for line in [] if quiet else jobs.lines(merged, None if path is None else address(path)):
        say(line, err=True)
