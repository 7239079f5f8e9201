"""`pipeprof export RUN --to FORMAT`: write a run for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof.cli.reading import read, run_argument


@click.command()
@run_argument
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(["perfetto", "tensorboard", "csv", "parquet", "json"]),
    help="The format.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file (perfetto) or the new directory (the others); by default in RUN.",
)
def command(run: Path, form: str, out: Path | None) -> None:
    """Write RUN for other tools: a Perfetto trace for ui.perfetto.dev, TensorBoard scalars, or its tables."""
    from pipeprof.report import perfetto, tables, tensorboard

    answer = read(run)
    if form == "perfetto":
        click.echo(perfetto.write(answer.run, answer.timeline, out or run / "trace.pftrace"))
        return
    if form == "tensorboard":
        click.echo(tensorboard.write(answer, out or run / "tensorboard"))
        return
    for path in tables.write(answer.run, answer.as_dict(), form, out or run / form):
        click.echo(path)
