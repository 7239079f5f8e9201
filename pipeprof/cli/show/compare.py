"""`pipeprof compare RUN RUN...`: differences between runs, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeprof.cli.options import json_option
from pipeprof.cli.runs import RunDirectory, read, short, with_newest, written
from pipeprof.cli.say import say
from pipeprof.errors import InconclusiveError, TraceError

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis


_PAIR: Final = 2


@click.command()
@click.argument("runs", metavar="[RUN RUN...]", nargs=-1, type=RunDirectory())
@click.option("--html", type=click.Path(path_type=Path), help="Also write the comparison as a page.")
@json_option
@click.option("--markdown", is_flag=True, help="Print a table for a pull request and nothing else.")
@click.option("--force", is_flag=True, help="Compare even where the comparison is not fair.")
@click.option(
    "--rerun",
    type=click.IntRange(2, 10),
    metavar="N",
    help="Run both commands N times here, alternating (A B A B), and compare the pairs.",
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
    """Compare each RUN with the first: what differs beyond noise, and where the time went.

    So the run before a change comes first: `pipeprof compare 2 1` of the newest two in `pipeprof list`, which
    are also compared without RUN; a single RUN is compared with the newest one. Exits with 3 if the
    comparison is not fair: other programs took more of the cores during one run than during the other.
    """
    if as_json and markdown:
        raise click.UsageError("give one of --json and --markdown")
    runs = with_newest(runs)
    if rerun is not None:
        if html is not None or markdown or len(runs) != _PAIR:
            raise click.UsageError("--rerun is for two runs, and prints text or --json")
        from pipeprof.cli.show import rerun as reruns

        ctx.exit(reruns.print_repeated(read(runs[0]), read(runs[1]), rerun, as_json, force))
    from pipeprof.analyse.differences import compare
    from pipeprof.report import compare as shown

    analyses = _readable(runs)
    comparisons = compare(analyses, force)
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
        if not as_json and not markdown:
            _say_how_to_repeat(analyses)
        ctx.exit(InconclusiveError.exit_code)


def _say_how_to_repeat(analyses: list[Analysis]) -> None:
    from pipeprof.report.wording.command import again

    if len(analyses) == _PAIR and all(again(each.run.meta) for each in analyses):
        names = " ".join(str(short(each.run.directory.absolute())) for each in analyses)
        say(f"To run both again, in turn, and compare the pairs: pipeprof compare {names} --rerun 3")


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
