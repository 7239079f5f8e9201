"""`pipeprof merge DIR…`: put the parts of a job of several ranks together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.reading import written

if TYPE_CHECKING:
    from pipeprof.analyse.merged import Merged


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the machine-readable answer and nothing else.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Where to write the page (default: report.html in DIR, or beside it where it is one part).",
)
def command(directories: tuple[Path, ...], as_json: bool, html: Path | None) -> None:
    """Say which rank the others waited for, and why.

    Each DIR is a directory that torchrun's ranks wrote their parts to, or one of the parts: several where the
    nodes wrote to disks of their own.
    """
    tell(directories, as_json, html or _page(directories[0]))


def _page(directory: Path) -> Path:
    """A part has a page of its own, which is not to be lost."""
    from pipeprof.trace import RUN_JSON

    place = directory.resolve().parent if (directory / RUN_JSON).exists() else directory
    return place / "report.html"


def tell(directories: tuple[Path, ...], as_json: bool, page: Path) -> None:
    """Merge, write the page and show the answer; or print it for machines alone."""
    from pipeprof.analyse.merge import merge

    merged = merge(directories)
    if as_json:
        click.echo(json.dumps(merged.as_dict(), indent=2))
    else:
        show(merged, write_page(merged, page))


def write_page(merged: Merged, page: Path) -> Path:
    """The page of a job. Raises `PipeprofError` where it cannot be written."""
    from pipeprof.report import ranks

    with written(page):
        return ranks.write(merged, page)


def show(merged: Merged, page: Path | None) -> None:
    """The answer in the terminal."""
    from pipeprof.report import ranks

    for line in ranks.lines(merged, None if page is None else str(page)):
        click.echo(line)
