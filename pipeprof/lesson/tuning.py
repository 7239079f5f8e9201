"""Claim 10's measurement: the cheapest set of cures, predicted, then tuned and measured."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import InconclusiveError, MeasureError
from pipeprof.lesson.kept import TUNED_JSON, TunedPlace, TunedPlaces, read_kept, save_kept
from pipeprof.lesson.measurements import Display, Result, lesson_directory
from pipeprof.record.meta import RunMeta
from pipeprof.record.schema import RUN_JSON

TARGET: Final = 0.05
HOPELESS: Final = 0.15
"""A place whose best prediction waits longer than this is not measured."""
NO_BETTER: Final = 0.01
"""A place whose waiting is less than a cheaper one's by at most this is not measured either."""
PLACES: Final[tuple[dict[str, str], ...]] = (
    {"storage.tier": "hdd"},
    {"storage.tier": "ssd"},
    {"storage.tier": "nvme"},
    {"storage.tier": "ram"},
    {"storage.tier": "ram", "storage.keep": "decoded"},
)
"""Places for the data, from the cheapest on."""
WORKERS: Final = (0, 1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Tuning:
    """Predicts every place from the first run, and tunes the worthwhile ones until one hardly waits at
    all."""

    quick: bool
    name: str = "10_tune"

    @property
    def budget_s(self) -> float:
        """Return the seconds for each place that is tuned."""
        return 20.0 if self.quick else 60.0

    def done(self, out: Path) -> bool:
        """Return whether the search came to its end."""
        kept = read_kept(TunedPlaces, out / TUNED_JSON)
        return kept is not None and kept.ended

    def measure(self, out: Path, display: Display | None = None) -> Result:
        """Predict each place, and tune those worth it. Raises `MeasureError` without the first run."""
        from pipeprof.record import reader
        from pipeprof.simulate.demands.other_programs import open_run

        if not (out / "1_hdd" / RUN_JSON).exists():
            raise MeasureError("tuning starts from the run 1_hdd, which is missing", "measure claim 1 first")
        demands = open_run(reader.load(out / "1_hdd"))
        places: list[TunedPlace] = []
        least = HOPELESS
        for place in PLACES:
            best = self._predicted(demands, place)
            if best.predicted_stall is not None and best.predicted_stall <= least - NO_BETTER:
                least = best.predicted_stall
                best = self._tuned(out, place, best)
            places.append(best)
            save_kept(out / TUNED_JSON, TunedPlaces(TARGET, tuple(places)))
            if best.stall is not None and best.stall < TARGET:
                break
        save_kept(out / TUNED_JSON, TunedPlaces(TARGET, tuple(places), ended=True))
        return Result()

    def _predicted(self, demands: Any, place: dict[str, str]) -> TunedPlace:
        """Predict the fewest workers with the least waiting there, without other programs on the cores."""
        from pipeprof.simulate.knobs import change
        from pipeprof.simulate.predict import predict

        knobs = change(replace(demands.measured, neighbours=0.0), place)
        stalls = {count: predict(demands, replace(knobs, workers=count)).stall.value for count in WORKERS}
        least = min(stalls.values())
        workers = next(count for count, stall in stalls.items() if stall <= least + 0.01)
        tier, keep = place["storage.tier"], place.get("storage.keep")
        return TunedPlace(tier, keep, workers, predicted_stall=stalls[workers])

    def _tuned(self, out: Path, place: dict[str, str], predicted: TunedPlace) -> TunedPlace:
        """Tune there; return the best setting and the stall of the run that confirmed it."""
        from pipeprof.analyse.analysis import load as analysis_of
        from pipeprof.scenario import load
        from pipeprof.simulate.tuning.tune import tune_scenario

        overrides = [f"{key}={value}" for key, value in place.items()]
        overrides += ["loader.workers=1", "loader.persistent_workers=true"]  # tuning starts from there
        scenario = load(lesson_directory() / "2_ssd.yaml", overrides)[0]
        directory = out / self.name / "-".join(place.values())
        if directory.exists():  # of an attempt that was broken off
            shutil.rmtree(directory)
        try:
            tuned, _ = tune_scenario(scenario, self.budget_s, directory)
        except InconclusiveError as error:
            return replace(predicted, why=error.problem)
        best = tuned.best
        runs = [analysis_of(path.parent) for path in directory.glob("*/run.json")]
        stalls = [
            analysis.verdict.stall_share
            for analysis in runs
            if _has_setting(analysis.run.meta, best.workers, best.prefetch)
        ]
        return replace(
            predicted,
            workers=best.workers,
            prefetch=best.prefetch if best.workers else None,
            stall=stalls[0] if stalls else None,
            trials=len(tuned.trials),
            agreed=tuned.agreed,
        )


def _has_setting(meta: RunMeta, workers: int, prefetch: int) -> bool:
    """Return whether a run had this setting."""
    loader = meta.settings.loader
    return loader.workers == workers and (not workers or (loader.prefetch or 2) == prefetch)
