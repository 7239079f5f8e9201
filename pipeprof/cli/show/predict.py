"""`pipeprof predict RUN`: what would fix it, by how much."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeprof import units
from pipeprof.cli.options import json_option
from pipeprof.cli.runs import Share, run_argument
from pipeprof.cli.say import say


@click.command()
@run_argument
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="What to change: storage.tier=nvme."
)
@click.option(
    "--ranks",
    type=click.IntRange(1),
    help="Number of processes like the recorded one, on all nodes together.",
)
@click.option(
    "--nodes", type=click.IntRange(1), help="Number of machines like this one that share the storage."
)
@click.option(
    "--target-stall",
    type=Share(between=True),
    default="5%",
    show_default=True,
    help="Share of waiting to aim for in “what it would take”.",
)
@click.option(
    "--steps", type=click.IntRange(2), help="Number of steps to predict (default: as many as RUN has)."
)
@click.option("--seed", type=int, default=0, help="Random seed for drawing batches.")
@click.option(
    "--probe",
    is_flag=True,
    help="First read some of RUN's data files, for at most 5 s, to measure their storage.",
)
@json_option
def command(
    run: Path,
    settings: tuple[str, ...],
    ranks: int | None,
    nodes: int | None,
    target_stall: float,
    steps: int | None,
    seed: int,
    probe: bool,
    as_json: bool,
) -> None:
    """Predict from RUN what other settings would give.

    Without --set: what would fix it, by how much, and what would be the limit then. With --set, such as
    `--set storage.tier=nvme --set loader.workers=8`: what these settings together would give.
    """
    from pipeprof.analyse.analysis import load
    from pipeprof.report.text.forecast import answer_text, overview_text
    from pipeprof.report.wording.advice import replay_warning
    from pipeprof.simulate import questions
    from pipeprof.simulate.forecast import Forecast

    if probe:
        from pipeprof.measure.host.storage_probe import probe_storage

        probe_storage(run)
    analysis = load(run)
    if ranks is not None:
        questions.refuse_more_ranks(analysis.run)
    forecast = Forecast(analysis, seed)
    predictor, measured = forecast.predictor, forecast.verdict.measured
    asked = questions.knobs_asked(predictor.demands, settings, ranks, nodes)
    if asked != predictor.demands.measured or steps is not None:
        answer = questions.answer(forecast, asked, steps)
        data, lines = answer.as_dict(), answer_text(answer)
    else:
        overview = questions.overview(forecast, target_stall)
        forecast.publish()
        data, lines = overview.as_dict(), overview_text(overview)
    if as_json:
        say(json.dumps({"schema": 1, "run": str(run), **data}, indent=2))
    else:
        stall = units.percent(forecast.verdict.stall_share)
        say(f"Measured: {units.sample_rate(measured.throughput_samples_per_s)}, stall {stall}.")
        if rough := replay_warning(forecast):
            say(f"{rough}.")
        say("\n".join(lines))
