"""Printing for all verbs: names of foreign records and of users' files are cleaned, for terminals."""

from __future__ import annotations

import click

from pipeprof.units import printable


def say(text: object, err: bool = False, nl: bool = True) -> None:
    """Print a text without the characters that drive or mislead a terminal; with `err` on standard error."""
    click.echo(printable(str(text)), err=err, nl=nl)
