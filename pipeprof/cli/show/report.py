"""`pipeprof report RUN`: show a run again, in the terminal, as a page, as JSON, as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.options import Price, json_option, verbose_option
from pipeprof.cli.runs import forecast, opener, run_argument, share_option, written
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeprof.record.reader import Run
    from pipeprof.simulate.forecast import Forecast


@click.command()
@run_argument
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown for an issue and nothing else.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Where to write the page (default: RUN/report.html, unless it is newer than the record).",
)
@click.option(
    "--png", type=click.Path(path_type=Path), help="Write the charts as PNG files into this directory."
)
@click.option("--no-source", is_flag=True, help="Leave the source text of the hot lines out of the page.")
@share_option
@verbose_option
@click.option(
    "--price", type=Price(), help="Price of the accelerator, such as 2.5/h, to show what the waiting costs."
)
@click.option("--predict-from", metavar="CELL", help="In a matrix, the cell whose run predicts the others.")
@click.option("--loader", metavar="NAME", help="Show only this loader, by name or number.")
def command(
    run: Path,
    as_json: bool,
    markdown: bool,
    html: Path | None,
    png: Path | None,
    no_source: bool,
    share: bool,
    verbose: bool,
    price: float | None,
    predict_from: str | None,
    loader: str | None,
) -> None:
    """Show RUN: what the accelerator waited for, why, and what would fix it.

    For a job under torchrun, RUN is the directory of all ranks, which are shown together, or of one of them.
    For a traced script that started other processes, it is the directory of all of them. For a matrix, it is
    the directory of its cells, which are shown on one page, or of one cell.
    """
    from pipeprof.record import directories
    from pipeprof.record.schema import RUN_JSON

    if as_json and markdown:
        raise click.UsageError("give one of --json and --markdown")
    if not (run / RUN_JSON).exists():
        _refuse_for_several(
            run, {"--loader": loader is not None, "--markdown": markdown, "--price": price is not None}
        )
    if not (run / RUN_JSON).exists() and (directories.parts(run) or directories.processes(run)):
        _several(run, as_json, html, png, share)
        return
    if cells := _cells(run):
        if as_json or png is not None:
            raise PipeprofError(f"{run} holds several runs, shown on one page", "give one of them")
        _matrix(cells, html or run / _named("report", share), predict_from, opener(share))
        return
    if predict_from is not None:
        raise PipeprofError(f"{run} is one run", "--predict-from is for the directory of a matrix")
    shown = forecast(run, loader, opener(share))
    if as_json or markdown:
        say(_as_json(shown) if as_json else _as_markdown(shown, price))
        return
    from pipeprof.report.page import html as pages
    from pipeprof.report.text import terminal

    of_loader = "report" if loader is None else f"report-loader-{shown.analysis.loader}"
    page = html or run / _named(of_loader, share)
    if html is not None or no_source or price is not None or not _is_current(page, run):
        with written(page):
            pages.write(shown, page, with_source=not no_source, price_per_hour=price)
    terminal.show(shown, str(page), price_per_hour=price, in_full=verbose)
    if png is not None:
        with written(png):
            for path in pages.write_pictures(shown, png):
                say(path)


def _named(stem: str, share: bool) -> str:
    """Return the usual name of a page. A shared report lies next to the one that is not shared."""
    return f"{stem}-shared.html" if share else f"{stem}.html"


def _several(run: Path, as_json: bool, html: Path | None, png: Path | None, share: bool) -> None:
    """Show the ranks of a job together, and the processes of a traced script individually."""
    from pipeprof.cli.show import merge, processes
    from pipeprof.record.directories import parts

    ranks = parts(run)
    if png is not None or (html is not None and not ranks):
        what = "several ranks, which have no pictures" if ranks else "several processes, each with its page"
        raise PipeprofError(f"{run} holds {what}", "give one of them")
    if ranks:
        merge.print_merged((run,), as_json, html or run / _named("report", share), opener(share))
    elif share:
        raise PipeprofError(
            f"{run} holds several processes", "--share is for one of them: give its directory"
        )
    elif as_json:
        processes.print_json(run)
    if not as_json:
        processes.print_processes(run)


def _refuse_for_several(run: Path, asked: dict[str, bool]) -> None:
    """Refuse options that are for one run alone. Raises `PipeprofError`."""
    for option, given in asked.items():
        if given:
            raise PipeprofError(f"{run} is not a single run", f"{option} is for one run: give its directory")


def _as_json(shown: Forecast) -> str:
    return json.dumps(shown.as_dict(), indent=2)


def _as_markdown(shown: Forecast, price: float | None) -> str:
    from pipeprof.report.text.markdown import markdown

    return markdown(shown, price).rstrip()


def _is_current(page: Path, run: Path) -> bool:
    """Return whether there is a page that was written after the run's record."""
    from pipeprof.record.choice import CHOICE_JSON

    try:
        written_ns = page.stat().st_mtime_ns
        record = [path for path in run.iterdir() if path.suffix != ".html" and path.name != CHOICE_JSON]
        return all(path.stat().st_mtime_ns <= written_ns for path in record if path.is_file())
    except OSError:
        return False


def _cells(run: Path) -> list[Path]:
    """Return the runs of a matrix in `run`, in the order of their making; empty if it holds none."""
    from pipeprof.record.reader import load
    from pipeprof.record.schema import RUN_JSON

    if (run / RUN_JSON).exists():
        return []
    runs = [load(path.parent) for path in sorted(run.glob(f"*/{RUN_JSON}"))]
    if not all(
        each.meta.settings.cell for each in runs
    ):  # runs of other scenarios that happen to lie side by side
        return []
    return [part.directory for part in sorted(runs, key=lambda part: part.meta.created_at or "")]


def _matrix(cells: list[Path], page: Path, predict_from: str | None, open_run: Callable[[Path], Run]) -> None:
    from pipeprof.report.page import html as pages
    from pipeprof.simulate.matrix_predictions import predict_cells

    forecasts = [forecast(cell, None, open_run) for cell in cells]
    predictions = predict_cells(forecasts, predict_from)
    with written(page):
        pages.write_matrix([each.analysis for each in forecasts], predictions, page)
    say(f"{len(forecasts)} runs. Report of all: {page}")
