"""`pipeprof open RUN`: open a run's report in a browser."""

from __future__ import annotations

import shlex
import socket
import webbrowser
from pathlib import Path

import click

from pipeprof.cli.runs import forecast, run_argument, written
from pipeprof.cli.say import say
from pipeprof.record.schema import REPORT_HTML


@click.command()
@run_argument
def command(run: Path) -> None:
    """Open the report of RUN in a browser, and write it first if there is none yet."""
    page = run / REPORT_HTML
    if not page.is_file():
        from pipeprof.report.page import html

        with written(page):
            html.write(forecast(run), page)
    if not webbrowser.open(page.resolve().as_uri()):
        say(f"No browser here. The page is one file: {page.resolve().as_uri()}")
        say(f"On your own machine: scp {_host()}:{shlex.quote(str(page.resolve()))} .")


def _host() -> str:
    return socket.gethostname() or "HOST"
