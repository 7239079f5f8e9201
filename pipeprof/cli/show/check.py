"""`pipeprof check RUN`: a gate for CI. Exit 0 passed, 1 failed, 2 bad use, 3 inconclusive."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof.cli.runs import RunDirectory, Share, read, run_argument, written
from pipeprof.cli.say import say


@click.command()
@run_argument
@click.option("--max-stall", type=Share(), help="Fail if the stall share is above this, such as 5%.")
@click.option("--min-utilization", type=Share(), help="Fail if the utilisation is below this, such as 90%.")
@click.option("--baseline", type=RunDirectory(), help="The run to compare the throughput with.")
@click.option("--max-regression", type=Share(), help="Fail if throughput dropped by more than this share.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write the gates as a JUnit XML file.")
@click.option(
    "--force", is_flag=True, help="Compare even with a baseline of other data or another accelerator."
)
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    max_stall: float | None,
    min_utilization: float | None,
    baseline: Path | None,
    max_regression: float | None,
    junit: Path | None,
    force: bool,
) -> None:
    """Check RUN against gates. Exits with 0 if all pass, 1 if one fails, 3 if the run cannot tell."""
    if (baseline is None) != (max_regression is None):
        raise click.UsageError("--baseline and --max-regression go together")
    if max_stall is None and min_utilization is None and baseline is None:
        raise click.UsageError("give a gate: --max-stall, --min-utilization, or --baseline")
    from pipeprof.analyse import gates

    base = None if baseline is None else read(baseline)
    results = gates.check(read(run), max_stall, min_utilization, base, max_regression, force)
    for gate in results:
        say(f"{gate.word:<13} {gate.name}: {gate.says}")
    if junit is not None:
        with written(junit):
            gates.write_junit(results, run, junit)
    ctx.exit(gates.exit_code(results))
