"""`pipeprof export RUN --to FORMAT`: write a run for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof.cli.options import Directory
from pipeprof.cli.runs import opener, read, run_argument, share_option
from pipeprof.cli.say import say


@click.command()
@run_argument
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(
        ["perfetto", "chrome", "speedscope", "collapsed", "tensorboard", "csv", "parquet", "json"]
    ),
    help="The format.",
)
@click.option(
    "--out",
    type=Directory(),
    help="The file (traces, stacks) or the new directory (other formats) to write (default: in RUN).",
)
@share_option
def command(run: Path, form: str, out: Path | None, share: bool) -> None:
    """Write RUN for other tools: traces, flame graphs, scalars or tables.

    perfetto: a trace for ui.perfetto.dev. chrome: the same as JSON, with no further package needed.
    speedscope: the sampled lines of the training thread and of each worker, for speedscope.app. collapsed:
    the same as folded stacks, for flame graphs. tensorboard: scalars. csv, parquet, json: the run's tables.
    """
    analysis = read(run, open_run=opener(share))
    if form == "perfetto":
        from pipeprof.report.export import perfetto

        say(perfetto.write(analysis, out or run / "trace.pftrace"))
        return
    if form == "chrome":
        from pipeprof.report.export import chrome

        say(chrome.write(analysis, out or run / "trace.json"))
        return
    if form in ("speedscope", "collapsed"):
        from pipeprof.report.export import stacks

        write, name = stacks.FORMS[form]
        say(write(analysis.run, out or run / name))
        return
    if form == "tensorboard":
        from pipeprof.report.export import tensorboard

        say(tensorboard.write(analysis, out or run / "tensorboard"))
        return
    from pipeprof.report.export import tables

    for path in tables.write(analysis.run, analysis.verdict.as_dict(), form, out or run / form):
        say(path)
