"""`pipeprof run FILE`: measure a scenario, each cell of a matrix in turn, and report."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeprof.cli.options import (
    Destination,
    json_option,
    kernels_option,
    name_option,
    no_report_option,
    overrides_of_rank,
    set_option,
    set_rank_option,
    verbose_option,
)
from pipeprof.cli.runs import print_comparison, written_page
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError, ScenarioError, exit_code_of
from pipeprof.record.directories import refuse_recorded
from pipeprof.record.meta import ScenarioMeta
from pipeprof.record.schema import REPORT_HTML
from pipeprof.scenario import Scenario, load
from pipeprof.scenario.expectation import misses
from pipeprof.scenario.shipped import scenario_file

if TYPE_CHECKING:
    from pipeprof.simulate.forecast import Forecast


@dataclass(frozen=True)
class CellOutcome:
    """Measured cell of a scenario; `error` if it failed. A run that failed may be readable still."""

    scenario: Scenario
    directory: Path
    forecast: Forecast | None
    error: PipeprofError | None

    @property
    def interrupted(self) -> bool:
        """Return True if the user stopped it."""
        return self.forecast is not None and self.forecast.analysis.run.status == "interrupted"

    @property
    def missed(self) -> list[str]:
        """Return the expectations that a complete run did not meet."""
        expect, forecast = self.scenario.expect, self.forecast
        if expect is None or forecast is None or forecast.analysis.run.status != "complete":
            return []
        return misses(expect, forecast.verdict.as_dict())


@click.command()
@click.argument("given", metavar="[FILE]", required=False)
@set_option
@set_rank_option
@click.option(
    "--out",
    type=Destination(),
    help="The run directory, or a URL such as s3://bucket/job (default: a new one in runs/).",
)
@name_option
@kernels_option
@no_report_option
@click.option("-q", "--quiet", is_flag=True, help="Print only errors, and progress while data is generated.")
@verbose_option
@json_option
@click.option("--strict", is_flag=True, help="Exit with 1 if the scenario's `expect` does not hold.")
@click.pass_context
def command(
    ctx: click.Context,
    given: str | None,
    overrides: tuple[str, ...],
    rank_overrides: tuple[str, ...],
    out: Path | None,
    run_name: str | None,
    kernels: int,
    no_report: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    strict: bool,
) -> None:
    """Measure the scenario FILE and say where the time went.

    FILE is a path or the name of a shipped scenario (`pipeprof scenarios` lists them); the default is the
    quickstart. A scenario with a matrix is measured once per cell, into one directory. Under torchrun all
    ranks measure it together, each writing its own part of the directory.
    """
    if (given or "").endswith(".py"):
        raise ScenarioError(f"{given} is a Python script", f"for a script: pipeprof trace {given}")
    file = scenario_file(given)
    if out is not None:
        refuse_recorded(out)
    from pipeprof.measure.session.job import here

    rank = here()
    scenarios = load(file, (*overrides, *overrides_of_rank(rank_overrides, rank and rank.rank)))
    scenarios = _named(scenarios, run_name)
    if rank is not None and strict:
        raise ScenarioError(
            "--strict holds the run of one process to `expect`, and this is one of several ranks",
            "leave it out, and hold a part to a limit with `pipeprof check DIR/rank-0 --max-stall 5%`",
        )
    runs = list(zip(scenarios, directories(scenarios, file, out), strict=True))
    if rank is not None:
        from pipeprof.cli.measure.run_ranks import run_together

        ctx.exit(run_together(rank, runs, file, not no_report, as_json, kernels, quiet))
    outcomes = []
    for scenario, directory in runs:
        outcome = measure(scenario, directory, file, kernels, quiet)
        outcomes.append(outcome)
        # reported before the next run begins: a later one may fail
        _report(outcome, page=not no_report, terminal=not as_json, quiet=quiet, verbose=verbose)
        if outcome.interrupted:
            break
    if as_json:
        say(json.dumps(as_data(outcomes), indent=1))
    elif not no_report:
        show_matrix(outcomes, quiet)
    ctx.exit(exit_code(outcomes, strict))


def _report(outcome: CellOutcome, page: bool, terminal: bool, quiet: bool, verbose: bool) -> None:
    """Write the page of a run and print its report, as far as either is wanted."""
    written = None
    if outcome.forecast is not None and page:
        written = written_page(outcome.forecast, outcome.directory / REPORT_HTML)
    if terminal:
        show(outcome, written, quiet, verbose)


def _named(scenarios: list[Scenario], name: str | None) -> list[Scenario]:
    """Return the scenarios, the only one with another name if one is given."""
    if name is None:
        return scenarios
    if len(scenarios) > 1 or scenarios[0].cell:
        raise ScenarioError("--name is for one run, and a matrix makes several", "give --out a directory")
    return [scenarios[0].model_copy(update={"name": name})]


def directories(scenarios: list[Scenario], file: Path, out: Path | None) -> list[Path]:
    """Return where each run goes: `out` or a new directory in `runs/`, with the cells of a matrix inside."""
    from pipeprof.measure.session.job import directory_for

    if len(scenarios) == 1 and not scenarios[0].cell:
        return [out or directory_for(scenarios[0].name)]
    parent = out or directory_for(file.stem)
    return [parent / scenario.name for scenario in scenarios]


def measure(
    scenario: Scenario, directory: Path, file: Path, kernels: int = 0, quiet: bool = False
) -> CellOutcome:
    """Run one scenario and read its record back, whatever it ended with."""
    from pipeprof.analyse.analysis import analyse
    from pipeprof.measure.bench.run import run
    from pipeprof.measure.bench.run_display import shown
    from pipeprof.record import reader
    from pipeprof.simulate.forecast import PAGE_LIMIT_S, Forecast

    written = ScenarioMeta(path=str(file), text=file.read_text(encoding="utf-8-sig"))
    error = None
    try:
        run(scenario, directory, written=written, display=None if quiet else shown, kernels=kernels)
    except PipeprofError as raised:
        error = raised
    try:
        recorded = reader.load(directory)
        if recorded.status == "running":  # there was no room for its last status
            recorded.meta = replace(recorded.meta, status="partial")
        forecast = Forecast(analyse(recorded), limit_s=PAGE_LIMIT_S)
    except PipeprofError as unreadable:
        return CellOutcome(scenario, directory, None, error or unreadable)
    return CellOutcome(scenario, directory, forecast, error)


def show(outcome: CellOutcome, page: Path | None, quiet: bool, verbose: bool) -> None:
    """Print the report, then what went wrong and whether the run came to what the scenario expects."""
    from pipeprof.report.text import terminal

    if outcome.forecast is not None and not quiet:
        terminal.show(outcome.forecast, str(page) if page is not None else None, in_full=verbose)
    if outcome.error is not None:
        say(f"pipeprof: {outcome.error}", err=True)
    elif quiet:
        return
    elif outcome.interrupted:
        say(f"Interrupted: the report is of what was measured until then, in {outcome.directory}")
    elif outcome.missed:
        say(f"Unexpected for this scenario: {'; '.join(outcome.missed)}.{_too_short(outcome.forecast)}")
    elif outcome.scenario.expect is not None:
        say("As this scenario expects.")
    if outcome.error is None and not outcome.interrupted and not outcome.scenario.cell:
        print_comparison(outcome.directory)


def _too_short(forecast: Forecast | None) -> str:
    """Return that the run was too short to tell, if that is the reason; else an empty text."""
    from pipeprof.analyse.verdict import TOO_LITTLE

    if forecast is None or forecast.verdict.finding.detail not in TOO_LITTLE:
        return ""
    return " This run was too short to tell."


def show_matrix(outcomes: list[CellOutcome], quiet: bool) -> None:
    """Write a page for all cells of a matrix, next to them; nothing for a single run."""
    from pipeprof.report.page import html
    from pipeprof.simulate.matrix_predictions import predict_cells

    forecasts = [outcome.forecast for outcome in outcomes if outcome.forecast is not None]
    if outcomes[0].scenario.cell and forecasts:
        page = outcomes[0].directory.parent / REPORT_HTML
        html.write_matrix([each.analysis for each in forecasts], predict_cells(forecasts), page)
        if not quiet:
            say(f"{len(forecasts)} of {len(outcomes)} runs. Report of all: {page}")


def as_data(outcomes: list[CellOutcome]) -> Any:
    """Return the answer's dictionary; for a matrix a list with an entry for each cell."""
    cells = [
        {
            "name": outcome.scenario.name,
            "run": str(outcome.directory),
            "cell": outcome.scenario.cell,
            "answer": outcome.forecast.as_dict() if outcome.forecast is not None else None,
            "error": str(outcome.error) if outcome.error is not None else None,
            "missed": outcome.missed,
        }
        for outcome in outcomes
    ]
    return cells if outcomes[0].scenario.cell else cells[0]["answer"]


def exit_code(outcomes: list[CellOutcome], strict: bool) -> int:
    """Return the first error's code, a signal's after an interruption, 1 if `expect` was missed."""
    for outcome in outcomes:
        if outcome.error is not None:
            return outcome.error.exit_code
    for outcome in outcomes:
        if outcome.interrupted and outcome.forecast is not None:
            return exit_code_of(outcome.forecast.analysis.run.meta.signal)
    return int(strict and any(outcome.missed for outcome in outcomes))
