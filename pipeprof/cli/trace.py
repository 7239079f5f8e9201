"""`pipeprof trace train.py ARGS…`: run a training script with every DataLoader observed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeprof.errors import PipeprofError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run directory; by default a new one in runs/."
)
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is a module, as with python -m.")
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option(
    "--telemetry-hz",
    type=float,
    default=0.0,
    help="Look at CPU, memory, disks and GPUs so often a second, as `run` does 10 times; by default never.",
)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context,
    out: Path | None,
    as_module: bool,
    no_report: bool,
    telemetry_hz: float,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run SCRIPT unchanged, with its ARGUMENTS, and say where its DataLoaders' time went.

    The run is written whatever the script ends with, and its exit code is kept. Under torchrun each rank
    writes its own part and none reports: `pipeprof report` shows all parts together.
    """
    from pipeprof.measure.ranks import here
    from pipeprof.measure.script import trace_script

    traced = trace_script(script, arguments, out, as_module, telemetry_hz)
    rank = here()
    if rank is not None:  # the ranks are reported together, when all of them have ended
        if rank.rank == 0 and traced.written:
            job = _short(traced.directory.parent)
            click.echo(f"pipeprof: see all ranks with `pipeprof report {job}`", err=True)
        ctx.exit(traced.exit_code)
    if traced.in_parent:
        sys.stdout.flush()
        if traced.steps == 0:
            seen = _short(traced.directory)
            click.echo(f"pipeprof: no batch was taken from a DataLoader; see {seen}", err=True)
        else:
            _report(_short(traced.directory), page=not no_report)
    ctx.exit(traced.exit_code)


def _report(directory: Path, page: bool) -> None:
    """The verdict in the terminal, and the page beside the trace. Neither changes the script's exit code."""
    from pipeprof.report import html, terminal
    from pipeprof.simulate.answer import load

    try:
        answer = load(directory)
        path = html.write(answer, directory / "report.html") if page else None
        terminal.show(answer, str(path) if path is not None else None)
    except (PipeprofError, OSError) as error:
        click.echo(f"pipeprof: {directory} was written and cannot be reported: {error}", err=True)


def _short(path: Path) -> Path:
    """As seen from the working directory, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
