"""`pipeprof list [DIR]`: show the runs of a directory."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("directory", default="runs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
def command(directory: Path, as_json: bool) -> None:
    """Show the runs in DIRECTORY (runs/ by default), the newest first."""
    from pipeprof.report.catalogue import entries
    from pipeprof.report.terminal import clean

    found = entries(directory)
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in found], indent=2))
        return
    if not found:
        click.echo(f"no runs in {directory}")
    for entry in found:
        emulated = "emulated" if entry.emulated else ""
        click.echo(clean(f"{entry.created:<20}{entry.status:<13}{emulated:<10}{entry.directory}"))
