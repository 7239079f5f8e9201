"""`pipeprof compare RUN RUN...`: differences between runs, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeprof.cli.runs import RunDirectory, read, with_newest, written
from pipeprof.cli.say import say
from pipeprof.errors import InconclusiveError, TraceError

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis


_PAIR: Final = 2


@click.command()
@click.argument("runs", metavar="[RUN RUN...]", nargs=-1, type=RunDirectory())
@click.option("--html", type=click.Path(path_type=Path), help="Write the comparison as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
@click.option("--markdown", is_flag=True, help="Print a table for a pull request, and nothing else.")
@click.option("--force", is_flag=True, help="Compare what is no fair comparison too.")
@click.option(
    "--rerun",
    type=click.IntRange(2, 10),
    metavar="N",
    help="Run the commands of both N times in turn (A B A B), here, and compare the pairs.",
)
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[Path, ...],
    html: Path | None,
    as_json: bool,
    markdown: bool,
    force: bool,
    rerun: int | None,
) -> None:
    """Compare each RUN with the first: what differs beyond noise, and where it went.

    Exit 3 where it is no fair comparison: other programs took more of the cores beside one run than beside
    the other. With one RUN it is compared with the newest, without any the newest with the one before it.
    """
    if as_json and markdown:
        raise click.UsageError("give one of --json and --markdown")
    runs = with_newest(runs)
    if rerun is not None:
        if html is not None or markdown or len(runs) != _PAIR:
            raise click.UsageError("--rerun is for two runs, and prints text or --json")
        from pipeprof.cli.show import rerun as reruns

        ctx.exit(reruns.tell(read(runs[0]), read(runs[1]), rerun, as_json, force))
    from pipeprof.analyse.differences import compare
    from pipeprof.report import compare as shown

    comparisons = compare(_readable(runs), force)
    if html is not None:
        with written(html):
            shown.write_html(comparisons, html)
    if as_json:
        say(json.dumps({"schema": 1, "comparisons": shown.as_data(comparisons)}, indent=2))
    elif markdown:
        say(shown.markdown(comparisons), nl=False)
    else:
        shown.show(comparisons)
        if html is not None:
            say(f"Page: {html}")
    if any(comparison.unfair for comparison in comparisons) and not force:
        ctx.exit(InconclusiveError.exit_code)


def _readable(runs: tuple[Path, ...]) -> list[Analysis]:
    """Read the runs; of several behind the first, one that cannot be read is left out, and said to be."""
    analyses = [read(runs[0])]
    for number, run in enumerate(runs[1:], 2):
        try:
            analyses.append(read(run))
        except TraceError as error:
            if number == len(runs) and len(analyses) == 1:
                raise
            say(f"pipeprof: {run} is left out: {error.problem}", err=True)
    return analyses
