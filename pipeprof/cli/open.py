"""`pipeprof open RUN`: open a run's report in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from pipeprof.cli.reading import read, run_argument, written
from pipeprof.errors import PipeprofError


@click.command()
@run_argument
def command(run: Path) -> None:
    """Open the report of RUN in a browser; it is written first where there is none yet."""
    page = run / "report.html"
    if not page.is_file():
        from pipeprof.report import html

        with written(page):
            html.write(read(run), page)
    if not webbrowser.open(page.resolve().as_uri()):
        raise PipeprofError("no browser could be opened", f"open {page} yourself")
