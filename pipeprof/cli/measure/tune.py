"""`pipeprof tune SCRIPT` or `SCENARIO`: search the fixes and confirm the best by measuring."""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import click

from pipeprof.cli.options import Amount, Directory, Duration, json_option
from pipeprof.cli.say import say
from pipeprof.errors import MeasureError, ScenarioError

_SCENARIOS = (".yaml", ".yml")
_BUDGET_S = {"scenario": 60.0, "script": 300.0}


class _Tune(click.Command):
    """A scenario may stand before its options; what follows a script is the script's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args, ctx.ignore_unknown_options = False, True
        file = self.make_parser(ctx).parse_args(list(args))[0].get("file")
        is_scenario = isinstance(file, str) and file.endswith(_SCENARIOS)
        ctx.allow_interspersed_args, ctx.ignore_unknown_options = is_scenario, False
        return super().parse_args(ctx, args)


@click.command(cls=_Tune)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the scenario or, as with `trace --set`, an argument of the script's loaders.",
)
@click.option(
    "--try",
    "tries",
    metavar="FIX",
    multiple=True,
    help="In every trial of a script, apply a fix that is not a loader argument, as `trace --try` does: "
    "cached, one-thread and others.",
)
@click.option(
    "--budget",
    type=Duration(5),
    help="Time to spend, such as 90, 5m or 1h (default: 5m for a script; 1m for a scenario, not counting "
    "the generation of its data).",
)
@click.option("--out", type=Directory(), help="Where the runs go (default: a new directory in runs/).")
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    help="Where to write the tuned scenario (default: OUT/tuned.yaml).",
)
@click.option("-m", "as_module", is_flag=True, help="FILE is a module, as with python -m.")
@click.option("--keep-order", is_flag=True, help="Do not try to deliver a script's batches out of order.")
@click.option(
    "--max-memory",
    type=Amount(),
    help="Memory limit for all processes of the script together, such as 8GB; a trial above it is ended.",
)
@json_option
@click.argument("file")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    file: str,
    arguments: tuple[str, ...],
    overrides: tuple[str, ...],
    tries: tuple[str, ...],
    budget: float | None,
    out: Path | None,
    write: Path | None,
    as_module: bool,
    keep_order: bool,
    max_memory: int | None,
    as_json: bool,
) -> None:
    """Find the loader's best settings for a training script with its ARGUMENTS, or for a scenario (.yaml):
    measure, predict, measure the best predictions, and repeat.

    Each trial of a script is a fresh process, ended after some seconds of its loop: whatever the script
    writes until then, it writes in every trial. The change to make is shown as a diff and never applied.
    Among settings that are equal within noise, the one with the fewest workers wins.
    """
    if not as_module and file.endswith(_SCENARIOS):
        of_scripts = {"--keep-order": keep_order, "--max-memory": max_memory, "--try": tries}
        if wrong := next(chain(arguments, (option for option, given in of_scripts.items() if given)), ""):
            raise ScenarioError(f"{wrong} does not apply to a scenario", "leave it out: it is for scripts")
        _tune_scenario(Path(file), overrides, budget or _BUDGET_S["scenario"], out, write, as_json)
        return
    if write is not None:
        raise MeasureError("--write is for scenarios", "the change of a script is OUT/change.diff")
    if not as_module and not Path(file).is_file():
        raise MeasureError(f"there is no script {file}", "give a Python script, or -m and a module")
    from pipeprof.simulate.tuning.processes import Script

    script = Script(file, arguments, as_module, overrides, tries)
    _tune_script(script, budget or _BUDGET_S["script"], out, keep_order, max_memory, as_json)


def _shown(as_json: bool) -> Any:
    from pipeprof.simulate.tuning import trials

    return (lambda trial: None) if as_json else (lambda trial: say(trials.line(trial)))


def _tune_script(
    script: Any, budget_s: float, out: Path | None, keep_order: bool, max_memory: int | None, as_json: bool
) -> None:
    from pipeprof.measure.probe.changes.arguments import read_changes
    from pipeprof.measure.probe.changes.fixes import read_fixes
    from pipeprof.record.directories import new_directory
    from pipeprof.record.files import write_atomically
    from pipeprof.simulate.tuning.script import conclusion, result_as_dict, tune_script

    read_fixes(script.tries)
    read_changes(script.settings)  # what cannot be set is refused before anything is run
    if int(os.getenv("WORLD_SIZE", "1")) > 1:
        raise MeasureError("tune runs the script by itself", "start it without torchrun")
    name = script.target if script.as_module else Path(script.target).stem
    directory = out or new_directory(f"{name}-tune")
    result = tune_script(script, budget_s, directory, _shown(as_json), keep_order, max_memory)
    target = directory / "change.diff"
    if result.edit.diff and not result.stays:
        write_atomically(target, result.edit.diff)
    if as_json:
        say(json.dumps(result_as_dict(result, target), indent=2))
        return
    for line in conclusion(result):
        say(line)
    if result.stays:
        return
    for note in result.edit.notes:
        say(f"Change: {note}.")
    if result.edit.diff:
        say(f"\n{result.edit.diff}\nNot applied; it is in {target} (patch -p1 < {target}).")
    say(f"Run with it: {result.command}")


def _tune_scenario(
    file: Path,
    overrides: tuple[str, ...],
    budget_s: float,
    out: Path | None,
    write: Path | None,
    as_json: bool,
) -> None:
    from pipeprof.record.directories import new_directory
    from pipeprof.record.files import write_atomically
    from pipeprof.scenario import load
    from pipeprof.scenario.dump import to_yaml
    from pipeprof.simulate.tuning import trials
    from pipeprof.simulate.tuning.tune import tune_scenario

    scenarios = load(file, overrides)
    if len(scenarios) != 1 or scenarios[0].cell:
        raise ScenarioError(
            f"{file} is a matrix: tuning takes one scenario", "leave `matrix` out, or --set its keys"
        )
    directory = out or new_directory(f"{scenarios[0].name}-tune")
    tuned, scenario = tune_scenario(scenarios[0], budget_s, directory, _shown(as_json))
    target = write or directory / "tuned.yaml"
    write_atomically(
        target, to_yaml(scenario, f"Tuned by pipeprof from {file.name}.\n{trials.conclusion(tuned)}")
    )
    if as_json:
        say(json.dumps(trials.as_dict(tuned, target), indent=2))
    else:
        say(trials.conclusion(tuned))
        say(f"Written: {target}")
