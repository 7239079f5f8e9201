"""`pipeprof history [DIR]`: many runs at a glance."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.options import PathOrUrl, json_option
from pipeprof.cli.runs import written
from pipeprof.cli.say import say

KEYS = ("script", "host", "setting")


@click.command()
@click.argument("directory", default="runs", type=PathOrUrl())
@json_option
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page.")
@click.option(
    "--by",
    default="script,host",
    metavar="KEYS",
    help="Group the runs by these of script, host and setting (default: script,host).",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    help="Price of one accelerator per hour, to show what the waiting costs.",
)
def command(directory: Path, as_json: bool, html: Path | None, by: str, price: float | None) -> None:
    """Show the results of the runs in DIRECTORY (default: runs/) over time, and where the rate changed.

    Waiting share, cause, mechanism, rate and cost by script, host and setting; the runs at which a script's
    rate on a host changed for good, and what else changed there (needs pip install 'pipeprof[history]').
    Runs without a report are analysed; each result is read once and kept in one file in DIRECTORY.
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
