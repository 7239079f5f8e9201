"""`pipeprof predict RUN`: what would fix it, by how much."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeprof.cli.reading import Share, run_argument
from pipeprof.errors import ScenarioError

if TYPE_CHECKING:
    from pipeprof.devices import StorageModel
    from pipeprof.simulate.demands import Demands
    from pipeprof.simulate.knobs import Knobs


@click.command()
@run_argument
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A question: storage.tier=nvme.")
@click.option("--ranks", type=click.IntRange(1), help="Processes like the recorded one, on all nodes.")
@click.option("--nodes", type=click.IntRange(1), help="Machines like this one that share the storage.")
@click.option(
    "--target-stall",
    type=Share(between=True),
    default="5%",
    show_default=True,
    help="For “what it would take”.",
)
@click.option("--steps", type=click.IntRange(2), help="Steps to predict; by default as many as RUN has.")
@click.option("--seed", type=int, default=0, help="Of the drawing of batches.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines, and nothing else.")
def command(
    run: Path,
    settings: tuple[str, ...],
    ranks: int | None,
    nodes: int | None,
    target_stall: float,
    steps: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Predict from RUN what other knobs would give.

    Without --set: what would fix it, by how much, and what limits it then. With --set one question is
    answered, such as `--set storage.tier=nvme --set loader.workers=8`.
    """
    from pipeprof import trace
    from pipeprof.analyse.answer import answer as analyse
    from pipeprof.simulate.answer import in_vain, open_analysed

    opened = trace.load(run)
    if ranks is not None and "world_size" in opened.meta:
        raise ScenarioError(
            f"{run} is one of {opened.meta['world_size']} ranks: its record holds its waiting for them",
            "predict --ranks from a run of one process",
        )
    analysed = analyse(opened)
    demands = open_analysed(analysed)
    asked = question(demands, settings, ranks, nodes)
    if asked != demands.measured or steps is not None:
        data, lines = one(demands, asked, steps, seed)
    else:
        data, lines = everything(demands, target_stall, seed, in_vain(analysed))
    if as_json:
        click.echo(json.dumps({"schema": 1, "run": str(run), **data}, indent=2))
    else:
        click.echo("\n".join(lines))


def question(demands: Demands, settings: tuple[str, ...], ranks: int | None, nodes: int | None) -> Knobs:
    """The recorded knobs with what was asked for changed. Raises `ScenarioError` for what cannot be asked."""
    from pipeprof.simulate.knobs import change

    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ScenarioError(f"--set {setting}: no value", "write --set key=value")
        pairs[key.strip()] = value.strip()
    profile = pairs.pop("storage.profile", None)
    knobs = demands.measured
    if profile is not None:
        knobs = replace(knobs, storage=profiled(Path(profile), pairs.pop("storage.device", None)))
    knobs = change(knobs, pairs, demands.step_ns)
    if nodes is not None:
        knobs = replace(knobs, nodes=nodes)
    if ranks is not None:
        if ranks % knobs.nodes:
            raise ScenarioError(f"{ranks} ranks on {knobs.nodes} nodes", "give as many ranks to each node")
        knobs = replace(knobs, ranks=ranks // knobs.nodes)
    return knobs


def profiled(path: Path, place: str | None) -> StorageModel:
    """The device of a profile that was measured at `place`, which may be left out where it is the only one.

    Raises `ScenarioError` where the profile does not tell which is meant.
    """
    from pipeprof.devices import nearest, storage_from_profile
    from pipeprof.measure.profile import read_profile

    profile = read_profile(path)
    tiers = profile["tiers"] if isinstance(profile["tiers"], list) else []
    entries = [entry for entry in tiers if isinstance(entry, dict)]
    places = [str(entry.get("path")) for entry in entries if entry.get("random") and entry.get("sequential")]
    if place is None and len(places) > 1:
        raise ScenarioError(
            f"{path} measured {len(places)} places: {', '.join(places)}",
            "say which is meant: --set storage.device=PLACE",
        )
    if place is not None and place not in places:
        raise ScenarioError(f"{path} measured nothing at {place}", nearest(place, places))
    return storage_from_profile(profile, place)


def one(demands: Demands, knobs: Knobs, steps: int | None, seed: int) -> tuple[dict[str, Any], Iterator[str]]:
    """The answer to one question, as data and as lines."""
    from pipeprof.report import forecast
    from pipeprof.simulate.predict import predict
    from pipeprof.simulate.search import shared_storage

    base = predict(demands, demands.measured, steps, seed=seed)
    prediction = predict(demands, knobs, steps, seed=seed)
    shared = shared_storage(demands, knobs, seed) if knobs.ranks * knobs.nodes > 1 else None

    def lines() -> Iterator[str]:
        yield from forecast.demand_lines(demands)
        limit = forecast.limit(base.limit)
        yield f"As it is: {forecast.estimate(base.throughput)} samples/s, limited by {limit}."
        yield from forecast.answer_lines(prediction, base, demands.notes)
        if shared is not None:
            yield from forecast.shared_lines(shared, knobs.ranks)

    data = {"as_it_is": base.as_dict(), "prediction": prediction.as_dict()}
    return {**data, "shared_storage": None if shared is None else asdict(shared)}, lines()


def everything(
    demands: Demands, target: float, seed: int, vain: Collection[str]
) -> tuple[dict[str, Any], Iterator[str]]:
    """Fixes but for those in `vain`, headspace, heat map and what it would take, as data and as lines."""
    from pipeprof.report import forecast
    from pipeprof.simulate.answer import without
    from pipeprof.simulate.fixes import advised, headspace, rank
    from pipeprof.simulate.search import heat_map, what_would_it_take

    knobs = demands.measured
    base, ranked = rank(demands, seed)
    fixes = without(ranked, vain, knobs)
    space = headspace(demands, base, seed)
    cells = heat_map(demands, knobs, seed=seed)
    needs = what_would_it_take(demands, knobs, target, seed, vain)
    best = advised(fixes)

    def lines() -> Iterator[str]:
        told = base.extrapolations
        yield from forecast.demand_lines(demands)
        yield from forecast.answer_lines(base, told=demands.notes)
        yield f"Headspace: the best of all loaders would add {forecast.estimate(space)} samples/s."
        yield (
            f"Advice: {best.fix.title} ({best.fix.how})." if best else "Advice: nothing here gains anything."
        )
        yield ""
        yield from forecast.fix_lines(fixes, told)
        yield ""
        yield f"Samples/s (stall) on {knobs.storage.name}, this run in brackets:"
        yield from forecast.heat_map_lines(cells, (knobs.workers, knobs.prefetch), told)
        yield ""
        yield from forecast.need_lines(needs, target, told)

    data = {
        "as_it_is": base.as_dict(),
        "headspace_samples_per_s": space.value,
        "headspace_interval": [space.low, space.high],
        "advice": best.fix.word if best else None,
        "fixes": [one.as_dict() for one in fixes],
        "heat_map": cells.as_dict(),
        "target_stall": target,
        "what_it_takes": [need.as_dict() for need in needs],
    }
    return data, lines()
