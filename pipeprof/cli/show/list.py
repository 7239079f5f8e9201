"""`pipeprof list [DIR]`: show the runs of a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeprof import units
from pipeprof.cli.options import PathOrUrl, json_option
from pipeprof.cli.say import say

if TYPE_CHECKING:
    from rich.table import Table

    from pipeprof.report.run_list import Entry


@click.command()
@click.argument("directory", default="runs", type=PathOrUrl())
@json_option
def command(directory: Path, as_json: bool) -> None:
    """List the runs in DIRECTORY (default: runs/), the newest first, with the result of each.

    Verbs that read runs accept the number of a run in runs/, as in `pipeprof report 2`, or its name.
    """
    from pipeprof.report.run_list import entries

    runs = entries(directory)
    if as_json:
        say(json.dumps([entry.as_dict() for entry in runs], indent=2))
    elif not runs:
        say(f"no runs in {directory}")
    else:
        from rich.console import Console

        Console(highlight=False, width=_UNCUT).print(_table(runs))


_UNCUT: Final = 1000
"""Columns, more than any line has: a path that is cut is of no use."""


def _table(runs: list[Entry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("", "made", "of", "waiting", "cause", "rate", "", "directory"):
        table.add_column(head, no_wrap=True)
    for number, entry in enumerate(runs, 1):
        cells = (str(number), entry.created, entry.name, *_outcome(entry), str(entry.directory))
        table.add_row(*(Text(units.printable(cell)) for cell in cells))
    return table


def _outcome(entry: Entry) -> tuple[str, str, str, str]:
    """Return the waiting share, the cause, the rate, and what else there is to say in a word or two."""
    status = "" if entry.status == "complete" else entry.status
    ranks = "" if entry.ranks is None else units.plural(entry.ranks, "rank")
    more = ", ".join(filter(None, (status, ranks, "emulated" if entry.emulated else "")))
    verdict = entry.verdict
    if verdict is None:
        return "", "", "", more
    stall = "" if verdict.stall_share is None else units.percent(verdict.stall_share)
    rate = verdict.throughput_samples_per_s
    return stall, verdict.cause, "" if rate is None else units.sample_rate(rate), more
