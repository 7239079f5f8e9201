"""`pipeprof doctor`: what can be observed on this machine, what not, and why."""

from __future__ import annotations

import json

import click

from pipeprof.cli.options import json_option


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List what pipeprof can and cannot observe on this machine, with the reason and the remedy."""
    from pipeprof.measure.host.checkup import checkup

    checks = list(checkup())
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
        return
    for check in checks:
        click.echo(f"{'ok' if check.seen else '--'}  {check.name:<20} {check.says}")
        if check.remedy:
            click.echo(f"{'':24} {check.remedy}")
