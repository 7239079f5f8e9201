"""`pipeprof compare RUN RUN...`: differences between runs, with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.reading import read, written


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Write the comparison as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
@click.option("--markdown", is_flag=True, help="Print a table for a pull request, and nothing else.")
@click.option("--force", is_flag=True, help="Compare runs of other data or another accelerator too.")
def command(runs: tuple[Path, ...], html: Path | None, as_json: bool, markdown: bool, force: bool) -> None:
    """Compare each RUN with the first: what differs beyond noise, and where it went."""
    if as_json and markdown:
        raise click.UsageError("give one of --json and --markdown")
    from pipeprof.report import compare as shown
    from pipeprof.report.differences import compare

    found = compare([read(run) for run in runs], force)
    if html is not None:
        with written(html):
            shown.write_html(found, html)
    if as_json:
        click.echo(json.dumps({"schema": 1, "comparisons": shown.as_data(found)}, indent=2))
    elif markdown:
        click.echo(shown.markdown(found), nl=False)
    else:
        shown.show(found)
        if html is not None:
            click.echo(f"Page: {html}")
