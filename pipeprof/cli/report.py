"""`pipeprof report RUN`: show a run again, in the terminal, as a page, as JSON, as pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.merge import tell
from pipeprof.cli.reading import read, run_argument, written
from pipeprof.errors import PipeprofError
from pipeprof.trace import RUN_JSON, parts


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the machine-readable answer and nothing else.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="Where to write the page (default: RUN/report.html)."
)
@click.option(
    "--png", type=click.Path(path_type=Path), help="Write the charts as PNG files into this directory."
)
def command(run: Path, as_json: bool, html: Path | None, png: Path | None) -> None:
    """Show RUN: what the accelerator waited for, why, and what would fix it.

    Of a job under torchrun RUN is the directory of all its ranks, shown together, or that of one of them.
    """
    if not (run / RUN_JSON).exists() and parts(run):
        if png is not None:
            raise PipeprofError(f"{run} holds several ranks, which have no pictures", "give one of its ranks")
        tell((run,), as_json, html or run / "report.html")
        return
    answer = read(run)
    if as_json:
        click.echo(json.dumps(answer.as_dict(), indent=2))
        return
    from pipeprof.report import html as pages
    from pipeprof.report import terminal

    page = html or run / "report.html"
    with written(page):
        pages.write(answer, page)
    terminal.show(answer, str(page))
    if png is not None:
        with written(png):
            for path in pages.write_pictures(answer, png):
                click.echo(path)
