"""`pipeprof tune SCENARIO`: search the fixes and confirm the best by measuring."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof.cli.common import set_option
from pipeprof.errors import ScenarioError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option(
    "--budget",
    type=click.FloatRange(min=5),
    default=60,
    show_default=True,
    help="Seconds to spend, once the data set is there.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the runs go; by default a new one in runs/."
)
@click.option(
    "--write", type=click.Path(path_type=Path), help="The tuned scenario (default: OUT/tuned.yaml)."
)
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
def command(
    file: Path, overrides: tuple[str, ...], budget: float, out: Path | None, write: Path | None, as_json: bool
) -> None:
    """Find the loader's best settings for the scenario FILE: measure, predict, measure the best, and again.

    Of settings that are equal within noise the one with the fewest workers is taken.
    """
    from pipeprof.scenario import load
    from pipeprof.scenario.dump import to_yaml
    from pipeprof.simulate import trials
    from pipeprof.simulate.tune import tune_scenario
    from pipeprof.trace import new_directory, write_atomically

    scenarios = load(file, overrides)
    if len(scenarios) != 1 or scenarios[0].cell:
        raise ScenarioError(
            f"{file} is a matrix: tuning takes one scenario", "leave `matrix` out, or --set its keys"
        )
    directory = out or new_directory(f"{scenarios[0].name}-tune")
    told = (lambda trial: None) if as_json else (lambda trial: click.echo(trials.line(trial)))
    tuned, scenario = tune_scenario(scenarios[0], budget, directory, told)
    target = write or directory / "tuned.yaml"
    write_atomically(
        target, to_yaml(scenario, f"Tuned by pipeprof from {file.name}.\n{trials.conclusion(tuned)}")
    )
    if as_json:
        click.echo(json.dumps(trials.as_dict(tuned, target), indent=2))
    else:
        click.echo(trials.conclusion(tuned))
        click.echo(f"Written: {target}")
