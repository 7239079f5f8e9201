"""`pipeprof run FILE`: measure a scenario, each cell of a matrix in turn, and report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipeprof.cli.common import overrides_of_rank, set_option, set_rank_option
from pipeprof.cli.expectation import misses
from pipeprof.errors import PipeprofError, ScenarioError
from pipeprof.scenario import Scenario, load


@dataclass(frozen=True)
class Outcome:
    """One cell of a scenario, measured; `error` where it failed. A run that failed may be readable still."""

    scenario: Scenario
    directory: Path
    answer: Any | None
    error: PipeprofError | None

    @property
    def interrupted(self) -> bool:
        """The user stopped it."""
        return self.answer is not None and self.answer.run.status == "interrupted"

    @property
    def missed(self) -> list[str]:
        """What the scenario expects and the run did not come to; only a complete run can."""
        if self.scenario.expect is None or self.answer is None or self.answer.run.status != "complete":
            return []
        return misses(self.scenario.expect, self.answer.as_dict())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@set_rank_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run directory; by default a new one in runs/."
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 1 where the scenario's `expect` does not hold.")
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    overrides: tuple[str, ...],
    rank_overrides: tuple[str, ...],
    out: Path | None,
    no_report: bool,
    as_json: bool,
    strict: bool,
) -> None:
    """Measure the scenario FILE and say where the time went.

    A scenario with a matrix is measured once for each of its cells, into one directory. Under torchrun all
    ranks measure it together, each into its own part of the directory.
    """
    from pipeprof.measure.ranks import here

    rank = here()
    scenarios = load(file, (*overrides, *overrides_of_rank(rank_overrides, rank and rank.rank)))
    if rank is not None:
        from pipeprof.cli.run_ranks import run_together

        if strict:
            raise ScenarioError(
                "--strict holds the run of one process to `expect`, and this is one of several ranks",
                "leave it out, and hold a part to a limit with `pipeprof check DIR/rank-0 --max-stall 5%`",
            )

        ctx.exit(run_together(rank, scenarios, file, out, page=not no_report, as_json=as_json))
    outcomes = []
    # Each run is reported before the next begins: a later one may fail.
    for scenario, directory in zip(scenarios, directories(scenarios, file, out), strict=True):
        outcome = measure(scenario, directory, file)
        outcomes.append(outcome)
        page = None if no_report else write_page(outcome)
        if not as_json:
            show(outcome, page)
        if outcome.interrupted:
            break
    if as_json:
        click.echo(json.dumps(as_data(outcomes), indent=1))
    elif not no_report:
        show_matrix(outcomes)
    ctx.exit(exit_code(outcomes, strict))


def directories(scenarios: list[Scenario], file: Path, out: Path | None) -> list[Path]:
    """Where each run goes: `out` or a new directory in `runs/`, the cells of a matrix side by side in it."""
    from pipeprof.measure.ranks import directory_for

    if len(scenarios) == 1 and not scenarios[0].cell:
        return [out or directory_for(scenarios[0].name)]
    parent = out or directory_for(file.stem)
    return [parent / scenario.name for scenario in scenarios]


def measure(scenario: Scenario, directory: Path, file: Path) -> Outcome:
    """Run one scenario and read its record back, whatever it ended with."""
    from pipeprof.measure.live import shown
    from pipeprof.measure.run import run
    from pipeprof.simulate.answer import load as answer_of

    written = {"path": str(file), "text": file.read_text(encoding="utf-8-sig")}
    error = None
    try:
        run(scenario, directory, written=written, display=shown)
    except PipeprofError as raised:
        error = raised
    try:
        answer = answer_of(directory)
    except PipeprofError as unreadable:
        return Outcome(scenario, directory, None, error or unreadable)
    if answer.run.status == "running":  # there was no room for its last status
        answer.run.meta["status"] = "partial"
    return Outcome(scenario, directory, answer, error)


def write_page(outcome: Outcome) -> Path | None:
    """`report.html` beside the trace; None where there is nothing to report or no room to write it."""
    from pipeprof.report import html

    if outcome.answer is None:
        return None
    try:
        return html.write(outcome.answer, outcome.directory / "report.html")
    except OSError as error:
        click.echo(f"pipeprof: report.html was not written: {error}", err=True)
        return None


def show(outcome: Outcome, page: Path | None) -> None:
    """The answer in the terminal, then what went wrong and whether the scenario kept its word."""
    from pipeprof.report import terminal

    if outcome.answer is not None:
        terminal.show(outcome.answer, str(page) if page is not None else None)
    if outcome.error is not None:
        click.echo(f"pipeprof: {outcome.error}", err=True)
    elif outcome.interrupted:
        click.echo(f"Interrupted: the report is of what was measured until then, in {outcome.directory}")
    elif outcome.missed:
        click.echo(f"Not as this scenario expects: {'; '.join(outcome.missed)}.")
    elif outcome.scenario.expect is not None:
        click.echo("As this scenario expects.")


def show_matrix(outcomes: list[Outcome]) -> None:
    """One page for all cells of a matrix, beside them; nothing for a single run."""
    from pipeprof.report import html

    answers = [outcome.answer for outcome in outcomes if outcome.answer is not None]
    if outcomes[0].scenario.cell and answers:
        page = html.write_matrix(answers, outcomes[0].directory.parent / "report.html")
        click.echo(f"{len(answers)} of {len(outcomes)} runs. Report of all: {page}")


def as_data(outcomes: list[Outcome]) -> Any:
    """The answer's dictionary; for a matrix a list with one for each cell."""
    cells = [
        {
            "name": outcome.scenario.name,
            "run": str(outcome.directory),
            "cell": outcome.scenario.cell,
            "answer": outcome.answer.as_dict() if outcome.answer is not None else None,
            "error": str(outcome.error) if outcome.error is not None else None,
            "missed": outcome.missed,
        }
        for outcome in outcomes
    ]
    return cells if outcomes[0].scenario.cell else cells[0]["answer"]


def exit_code(outcomes: list[Outcome], strict: bool) -> int:
    """The first error's code; 130 after an interruption, as shells have it; 1 where `expect` was missed."""
    for outcome in outcomes:
        if outcome.error is not None:
            return outcome.error.exit_code
    if any(outcome.interrupted for outcome in outcomes):
        return 130
    return int(strict and any(outcome.missed for outcome in outcomes))
