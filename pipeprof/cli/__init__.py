"""The door: parse, call, print, exit. One verb a file, imported when it is asked for.

Verbs lie in `measure/` (they make runs, or look at the machine), `show/` (they read runs) and `scenario/`. A
verb's module has a click command named `command`. Errors that pipeprof raises on purpose end here, as one
message and an exit code.
"""

from __future__ import annotations

import codecs
import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from pipeprof.cli.defaults import defaults_of
from pipeprof.errors import INTERRUPTED, READER_GONE, PipeprofError
from pipeprof.suggest import nearest
from pipeprof.units import ascii_only, printable

VERBS: Final[dict[str, tuple[str, str]]] = {
    "run": ("measure", "Measure a scenario and write a report."),
    "trace": ("measure", "Run a training script with every DataLoader observed."),
    "attach": ("measure", "Observe a training job that is already running."),
    "report": ("show", "Show a run again: terminal, HTML, JSON, pictures."),
    "merge": ("show", "Analyse the ranks of a job together: which one held up the others, and why."),
    "predict": ("show", "Predict what would fix a run, and by how much."),
    "tune": ("measure", "Search for the best fixes and confirm them by measuring."),
    "compare": ("show", "Show the differences between runs, with intervals."),
    "check": ("show", "Gate for CI: exit with 1 if a run is not good enough."),
    "export": ("show", "Write a run for other tools."),
    "live": ("show", "Show a run while it is written, from another terminal."),
    "list": ("show", "List the runs of a directory."),
    "history": ("show", "Show many runs at a glance: waiting, rate and cost over time, and what changed."),
    "upload": ("show", "Send the rest of a record that `--out URL` left behind."),
    "open": ("show", "Open a run's report in a browser."),
    "clean": ("show", "Delete old runs or cached data, after asking."),
    "doctor": ("measure", "List what can and cannot be observed here, and why."),
    "help": ("show", "Explain a topic: verdict, mechanisms, storage, prediction, ranks."),
    "devices": ("measure", "Show this machine's hardware from disk to device."),
    "scenarios": ("scenario", "List the shipped scenarios, with what each one teaches."),
    "validate": ("scenario", "Check scenario files."),
    "schema": ("scenario", "Print the JSON Schema of scenario files."),
    "init": ("scenario", "Write a commented scenario to edit."),
    "lesson": ("measure", "Reproduce the claims of CS231n, lecture 8."),
}
"""Verb to its folder and one line of help. Kept here so that `--help` imports no verb."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"pipeprof.cli.{VERBS[cmd_name][0]}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, with this project's defaults. Fails with the nearest one if there is none."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no such verb: {args[0]}; {_instead(args[0])}")
        _sign_of_life(args)
        verb, command, rest = super().resolve_command(ctx, args)
        if verb is not None and command is not None:
            ctx.default_map = {verb: defaults_of(verb, command, VERBS)}
        return verb, command, rest

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments, which prints the help if it is asked for."""
        with _reader_may_go():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        with _reader_may_go():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


@contextmanager
def _reader_may_go() -> Iterator[None]:
    """Exit quietly when the reader of the output has gone, with a code that no failed gate has."""
    try:
        yield
    except BrokenPipeError:  # here, as click would take it for an error of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_GONE)


_TAKE_SECONDS: Final = ("run", "trace", "tune", "lesson", "attach")
_READ: Final = ("report", "merge", "predict", "compare", "check", "export", "open", "history")


def _sign_of_life(args: list[str]) -> None:
    """Say on a terminal that a slow-to-import verb has started, unless `--quiet` was given."""
    is_silent = not {"-h", "--help", "-q", "--quiet"}.isdisjoint(args)
    if is_silent or "torch" in sys.modules or not sys.stderr.isatty():
        return
    if args[0] in _TAKE_SECONDS:
        click.echo(f"pipeprof {args[0]}: starting; imports take a few seconds …", err=True)
    elif args[0] in _READ:
        click.echo(f"pipeprof {args[0]}: reading …", err=True)


def _instead(word: str) -> str:
    """Return a suggestion for a word that is not a verb."""
    if word.endswith(".py"):
        return f"for a training script: pipeprof trace {word}"
    if word.endswith((".yaml", ".yml")):
        return f"for a scenario: pipeprof run {word}"
    return nearest(word, VERBS)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="pipeprof")
def cli() -> None:
    """Say whether the accelerator waits for data, why, and what would fix it."""


def _in_any_encoding(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream cannot encode by similar ASCII ones."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ascii_only(error.object[error.start : error.end]), error.end


def _print_in_any_encoding() -> None:
    """Let no sign of ours fail on a stream of an old encoding. Those of a traced script stay its own."""
    codecs.register_error("pipeprof", _in_any_encoding)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and sys.argv[1:2] != ["trace"]:
            stream.reconfigure(errors="pipeprof")


def _called(ctx: click.Context) -> str:
    """Return the words that a verb is called by, whatever started the program."""
    verb = ctx.command_path.removeprefix(ctx.find_root().command_path)
    return f"pipeprof{verb}"


_HELP: Final = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""click's error, from 8.2 on, whose message is the whole help."""


def main() -> None:
    """Run the console script: every error that ends a verb becomes one message and an exit code here."""
    _print_in_any_encoding()
    try:
        sys.exit(cli(standalone_mode=False))
    except PipeprofError as error:
        click.echo(f"pipeprof: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if isinstance(error, _HELP):
            error.show()
            sys.exit(error.exit_code)
        click.echo(f"pipeprof: {printable(error.format_message())}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"`{_called(error.ctx)} --help` shows how", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    finally:
        directories = sys.modules.get("pipeprof.record.directories")
        if directories is not None:  # a verb may have made a directory, and failed before it wrote a run
            directories.remove_unused()
