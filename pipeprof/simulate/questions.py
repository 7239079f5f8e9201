"""Questions to a forecast, as `pipeprof predict` asks them, and their answers as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeprof.devices import StorageModel, storage_from_profile
from pipeprof.errors import ScenarioError
from pipeprof.record.reader import Run
from pipeprof.scenario.profile import read_profile
from pipeprof.simulate import ranking, search
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.predict import Estimate, Prediction
from pipeprof.simulate.ranking import Calibration, Choice, Ranked
from pipeprof.simulate.search import HeatMap, Need, Shared
from pipeprof.suggest import nearest
from pipeprof.vocabulary import fixes


def knobs_asked(
    demands: Demands, settings: Sequence[str], ranks: int | None = None, nodes: int | None = None
) -> Knobs:
    """Return the recorded knobs with each `key=value` of `settings` changed, on that many ranks and nodes.

    Raises `ScenarioError` for what cannot be asked, `InconclusiveError` for a figure that is not known.
    """
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ScenarioError(f"--set {setting}: no value", "write --set key=value")
        pairs[key.strip()] = value.strip()
    profile = pairs.pop("storage.profile", None)
    knobs = demands.measured
    if profile is not None:
        knobs = replace(knobs, storage=_profiled(Path(profile), pairs.pop("storage.device", None)))
    knobs = change(knobs, pairs, demands.step_ns)
    if nodes is not None:
        knobs = replace(knobs, nodes=nodes)
    if ranks is not None:
        if ranks % knobs.nodes:
            raise ScenarioError(f"{ranks} ranks on {knobs.nodes} nodes", "give as many ranks to each node")
        knobs = replace(knobs, ranks=ranks // knobs.nodes)
    return knobs


def refuse_more_ranks(run: Run) -> None:
    """Raise `ScenarioError` if the run is one of several ranks: it cannot be predicted to have others."""
    ranks = run.meta.world_size
    if ranks is not None:
        raise ScenarioError(
            f"{run.directory} is one of {ranks} ranks: its record holds its waiting for them",
            "predict --ranks from a run of one process",
        )


def _profiled(path: Path, place: str | None) -> StorageModel:
    """Return the device of a profile that was measured at `place`, which may be left out if it is the only
    one. Raises `ScenarioError` if the profile does not show which is meant."""
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


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, next to the run as it is."""

    demands: Demands
    knobs: Knobs
    calibration: Calibration
    prediction: Prediction
    shared: Shared | None
    """Demands of several machines on the storage that they share; None for one process."""

    @property
    def base(self) -> Prediction:
        """Return the run as it is."""
        return self.calibration.base

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "as_it_is": self.base.as_dict(),
            "prediction": self.prediction.as_dict(),
            "shared_storage": None if self.shared is None else asdict(self.shared),
        }


def answer(forecast: Forecast, knobs: Knobs, steps: int | None = None) -> Answer:
    """Predict the run with `knobs`. Raises `InconclusiveError` if the run cannot answer."""
    predictor = forecast.predictor
    demands = predictor.demands
    calibration = replace(_calibration(forecast), base=predictor.predict(demands.measured, steps))
    prediction = predictor.predict(knobs, steps)
    shared = search.shared_storage(predictor, knobs) if knobs.ranks * knobs.nodes > 1 else None
    return Answer(demands, knobs, calibration, prediction, shared)


def _calibration(forecast: Forecast) -> Calibration:
    """Return the run's calibration. Raises `InconclusiveError` if it cannot be predicted from."""
    return forecast.calibration or Calibration(forecast.predictor.base())


@dataclass(frozen=True, slots=True)
class Overview:
    """Overview of what would fix a run, by how much, and what it would take."""

    demands: Demands
    calibration: Calibration
    best_of_loaders: Estimate
    choice: Choice
    fixes: tuple[Ranked, ...]
    heat_map: HeatMap
    target_stall: float
    needs: tuple[Need, ...]

    @property
    def base(self) -> Prediction:
        """Return the run as it is."""
        return self.calibration.base

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON. `advice` is the word of the verdict's fix, None for none."""
        best, now = self.best_of_loaders, self.calibration.rate(self.base).value
        added, low, high = (max(0.0, rate - now) for rate in (best.value, best.low, best.high))
        return {
            "as_it_is": self.base.as_dict(),
            "headroom_samples_per_s": added,
            "headroom_interval": [low, high],
            "advice": None if self.choice.word == fixes.NONE.word else self.choice.word,
            "fixes": [fix.as_dict() for fix in self.fixes],
            "heat_map": self.heat_map.as_dict(),
            "target_stall": self.target_stall,
            "what_it_takes": [need.as_dict() for need in self.needs],
        }


def overview(forecast: Forecast, target_stall: float) -> Overview:
    """Answer what would fix the run. Raises `InconclusiveError` if it cannot be predicted from."""
    predictor, calibration = forecast.predictor, _calibration(forecast)
    needs = search.what_would_it_take(
        predictor, predictor.demands.measured, target_stall, forecast.ineffective
    )
    return Overview(
        predictor.demands,
        calibration,
        calibration.rate(ranking.headroom(predictor)),
        forecast.choice,
        forecast.fixes,
        search.heat_map(predictor),
        target_stall,
        tuple(needs),
    )
