"""`pipeprof validate FILE...`: check scenario files."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof.cli.options import set_option
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Check scenario FILES: every key, every cell of a matrix, and the device profiles that they name.

    Exits with 2 if one is invalid.
    """
    from pipeprof.scenario import load
    from pipeprof.scenario.profile import read_profile

    failed = 0
    for file in files:
        try:
            scenarios = load(file, overrides)
            for profile in {each.storage.profile for each in scenarios if each.storage.profile}:
                read_profile(Path(profile))
            runs = len(scenarios)
        except PipeprofError as error:
            failed = error.exit_code
            say(f"pipeprof: {error}", err=True)
        else:
            say(f"{file}: valid, {runs} run{'s' if runs > 1 else ''}")
    ctx.exit(failed)
