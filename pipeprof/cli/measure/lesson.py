"""`pipeprof lesson`: measure the claims of CS231n, lecture 8, in order, and build the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from pipeprof.cli.options import set_option
from pipeprof.cli.runs import written

PAGE: Final = "index.html"


@click.command()
@click.option(
    "--quick", is_flag=True, help="Use fewer steps and fewer cells: minutes instead of half an hour."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the runs and the page go (default: runs/lesson, or runs/lesson-quick).",
)
@click.option(
    "--claim",
    "claims",
    type=click.IntRange(1, 10),
    multiple=True,
    help="Run only this claim. Can be given several times.",
)
@click.option("--page-only", is_flag=True, help="Build the page from earlier measurements; measure nothing.")
@set_option
@click.pass_context
def command(
    ctx: click.Context,
    quick: bool,
    out: Path | None,
    claims: tuple[int, ...],
    page_only: bool,
    overrides: tuple[str, ...],
) -> None:
    """Reproduce what lecture 8 of CS231n claims about feeding an accelerator, and build one page.

    Finished measurements are kept: after Ctrl-C the same command resumes where it stopped.
    """
    out = out or Path("runs") / ("lesson-quick" if quick else "lesson")
    code = 0
    if not page_only:
        from pipeprof.lesson.course import course
        from pipeprof.lesson.runner import Record, take
        from pipeprof.measure.bench.run_display import shown

        measurements = course(quick, claims, overrides)
        code = take(measurements, Record(out, quick), partial(click.echo, err=True), shown)
    click.echo(f"The page: {_build(out)}")
    ctx.exit(code)


def _build(out: Path) -> Path:
    from pipeprof.lesson import page

    with written(out / PAGE):
        return page.write(out, out / PAGE)
