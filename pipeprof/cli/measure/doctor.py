"""`pipeprof doctor`: what can be observed on this machine, what not, and why."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
def command(as_json: bool) -> None:
    """Say what pipeprof can observe on this machine and what not, with the reason and what to do."""
    from pipeprof.measure.host.checkup import checkup

    checks = list(checkup())
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
        return
    for check in checks:
        click.echo(f"{'ok' if check.seen else '--'}  {check.name:<20} {check.says}")
        if check.remedy:
            click.echo(f"{'':24} {check.remedy}")
