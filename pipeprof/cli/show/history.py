"""`pipeprof history [DIR]`: many runs at a glance."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.options import PathOrUrl
from pipeprof.cli.runs import written
from pipeprof.cli.say import say

KEYS = ("script", "host", "setting")


@click.command()
@click.argument("directory", default="runs", type=PathOrUrl())
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
@click.option("--html", type=click.Path(path_type=Path), help="Write it as a page too.")
@click.option(
    "--by",
    default="script,host",
    metavar="KEYS",
    help="What the runs are grouped by, of script, host and setting; script,host by default.",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    help="Price of an accelerator for an hour, in which the cost of the waiting is told.",
)
def command(directory: Path, as_json: bool, html: Path | None, by: str, price: float | None) -> None:
    """Show what the runs in DIRECTORY (runs/ by default) came to over time, and where the rate changed.

    Waiting share, cause, mechanism, rate and cost by script, host and setting; the runs from which on a
    script's rate on a host was another, and what changed with it (pip install 'pipeprof[history]'). What each
    run came to is read once, and kept in one file in DIRECTORY. Runs that were never reported are analysed.
    """
    from pipeprof.analyse.history.history import history
    from pipeprof.analyse.history.summaries import summarise
    from pipeprof.report import history as shown

    found = history(summarise(directory, _progress), _keys(by))
    page = None
    if html is not None:
        with written(html):
            page = shown.write(found, html, price)
    if as_json:
        say(json.dumps(found.as_dict(price), indent=2))
    elif not found.runs:
        say(f"no runs in {directory}")
    else:
        for line in shown.lines(found, price, None if page is None else str(page)):
            say(line)


def _keys(by: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(word.strip() for word in by.split(",")))
    if not keys or not set(keys) <= set(KEYS):
        raise click.UsageError(f"--by {by}: give some of {', '.join(KEYS)}, with commas between")
    return keys


def _progress(done: int, of: int) -> None:
    if done == of or done % 100 == 1:
        say(f"pipeprof: {done:,} of {of:,} runs analysed that had no summary", err=True)
