"""Options that several verbs share."""

from __future__ import annotations

import click

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the scenario, such as loader.workers=8. May stand several times.",
)
"""`--set`, handed to the command as `overrides: tuple[str, ...]`."""
