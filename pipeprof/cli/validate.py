"""`pipeprof validate FILE...`: check scenario files."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof.cli.common import set_option
from pipeprof.errors import PipeprofError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Check scenario FILES: every key, every cell of a matrix. Exit code 2 if one is wrong."""
    from pipeprof.scenario import load

    failed = 0
    for file in files:
        try:
            runs = len(load(file, overrides))
        except PipeprofError as error:
            failed = error.exit_code
            click.echo(f"pipeprof: {error}", err=True)
        else:
            click.echo(f"{file}: valid, {runs} run{'s' if runs > 1 else ''}")
    ctx.exit(failed)
