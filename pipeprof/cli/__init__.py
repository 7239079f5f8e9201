"""The door: parse, call, print, exit. One verb a file, imported when it is asked for.

A verb's module has a click command named `command`. Errors that pipeprof raises on purpose end here, as one
message and an exit code.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from pipeprof.errors import PipeprofError

VERBS: Final[dict[str, str]] = {
    "run": "Measure a scenario and write a report.",
    "trace": "Run a training script with every DataLoader observed.",
    "report": "Show a run again: terminal, HTML, JSON, pictures.",
    "merge": "Put the ranks of a job together: who held up the others, and why.",
    "predict": "What would fix it, by how much.",
    "tune": "Search the fixes and confirm the best by measuring.",
    "compare": "Differences between runs, with intervals.",
    "check": "Gate for CI: exit 1 where a run is not good enough.",
    "export": "Write a run for other tools.",
    "list": "Show the runs of a directory.",
    "open": "Open a run's report in a browser.",
    "devices": "What this machine has on the way from disk to device.",
    "validate": "Check scenario files.",
    "schema": "Print the JSON Schema of scenario files.",
    "init": "Write a commented scenario to edit.",
    "lesson": "Reproduce the claims of CS231n, lecture 8.",
}
"""Verb to one line of help. Kept here so that `--help` imports no verb."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"pipeprof.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pipeprof")
def cli() -> None:
    """Say whether the accelerator waits for data, why, and what would fix it."""


def main() -> None:
    """Entry point of the console script."""
    try:
        cli(standalone_mode=True)
    except PipeprofError as error:
        click.echo(f"pipeprof: {error}", err=True)
        sys.exit(error.exit_code)
