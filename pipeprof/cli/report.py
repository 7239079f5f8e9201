"""`pipeprof report RUN`: show a run again, in the terminal, as a page, as JSON, as pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.reading import read, run_argument, written
from pipeprof.errors import PipeprofError


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the machine-readable answer and nothing else.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="Where to write the page (default: RUN/report.html)."
)
@click.option(
    "--png", type=click.Path(path_type=Path), help="Write the charts as PNG files into this directory."
)
@click.option("--predict-from", metavar="CELL", help="Of a matrix: the cell whose run predicts the others.")
def command(run: Path, as_json: bool, html: Path | None, png: Path | None, predict_from: str | None) -> None:
    """Show RUN: what the accelerator waited for, why, and what would fix it.

    Of a job under torchrun RUN is the directory of all its ranks, shown together, or that of one of them. Of
    a matrix it is the directory of its cells, which come together on one page, or one of the cells.
    """
    from pipeprof.trace import RUN_JSON, parts

    if not (run / RUN_JSON).exists() and parts(run):
        from pipeprof.cli.merge import tell

        if png is not None:
            raise PipeprofError(f"{run} holds several ranks, which have no pictures", "give one of its ranks")
        tell((run,), as_json, html or run / "report.html")
        return
    if cells := _cells(run):
        if as_json or png is not None:
            raise PipeprofError(f"{run} holds several runs, shown on one page", "give one of them")
        _matrix(cells, html or run / "report.html", predict_from)
        return
    if predict_from is not None:
        raise PipeprofError(f"{run} is one run", "--predict-from is for the directory of a matrix")
    answer = read(run)
    if as_json:
        click.echo(json.dumps(answer.as_dict(), indent=2))
        return
    from pipeprof.report import html as pages
    from pipeprof.report import terminal

    page = html or run / "report.html"
    with written(page):
        pages.write(answer, page)
    terminal.show(answer, str(page))
    if png is not None:
        with written(png):
            for path in pages.write_pictures(answer, png):
                click.echo(path)


def _cells(run: Path) -> list[Path]:
    """The runs of a matrix in `run`, in the order in which they were made; empty where it holds none."""
    from pipeprof.trace import RUN_JSON, load

    if (run / RUN_JSON).exists():
        return []
    found = [load(path.parent) for path in sorted(run.glob(f"*/{RUN_JSON}"))]
    said = [(one.meta.get("scenario") or {}).get("resolved") or {} for one in found]
    if not all(one.get("cell") for one in said):  # runs of other scenarios that happen to lie side by side
        return []
    return [one.directory for one in sorted(found, key=lambda one: str(one.meta.get("created_at")))]


def _matrix(cells: list[Path], page: Path, predict_from: str | None) -> None:
    from pipeprof.report import html as pages

    answers = [read(cell) for cell in cells]
    with written(page):
        pages.write_matrix(answers, page, predict_from)
    click.echo(f"{len(answers)} runs. Report of all: {page}")
