"""`pipeprof schema`: the JSON Schema of scenario files, for editors."""

from __future__ import annotations

import json

import click


@click.command()
def command() -> None:
    """Print the JSON Schema of scenario files, for completion and validation in an editor."""
    from pipeprof.scenario import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
