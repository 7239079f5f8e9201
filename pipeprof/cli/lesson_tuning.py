"""The lesson's last rung: the cheapest set of cures, predicted, then found and measured by tuning."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import InconclusiveError, MeasureError

TARGET: Final = 0.05
HOPELESS: Final = 0.15
"""A place whose best prediction waits longer than this is not measured."""
NO_BETTER: Final = 0.01
"""Nor one that waits less than a cheaper place by no more than this."""
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
    """Predicts every place from the first run, and tunes those worth it until one waits hardly at all."""

    quick: bool
    name: str = "10_tune"

    @property
    def budget_s(self) -> float:
        """Seconds for each place that is tuned."""
        return 20.0 if self.quick else 60.0

    def done(self, out: Path) -> bool:
        """A search that came to its end."""
        from pipeprof.measure.lesson import read_json

        return bool(read_json(out / f"{self.name}.json").get("ended"))

    def measure(self, out: Path, display: Any = None) -> None:
        """Raises `MeasureError` where the first run is missing, and what tuning raises."""
        from pipeprof import trace
        from pipeprof.measure.lesson import save_json
        from pipeprof.simulate.neighbours import open_run

        if not (out / "1_hdd" / "run.json").exists():
            raise MeasureError("tuning starts from the run 1_hdd, which is missing", "measure claim 1 first")
        demands = open_run(trace.load(out / "1_hdd"))
        places: list[dict[str, Any]] = []
        least = HOPELESS
        for place in PLACES:
            found = self._predicted(demands, place)
            if found["predicted_stall"] <= least - NO_BETTER:
                least = found["predicted_stall"]
                found |= self._tuned(out, place)
            places.append(found)
            save_json(out / f"{self.name}.json", {"target": TARGET, "places": places, "ended": False})
            if found.get("stall") is not None and found["stall"] < TARGET:
                break
        save_json(out / f"{self.name}.json", {"target": TARGET, "places": places, "ended": True})

    def _predicted(self, demands: Any, place: dict[str, str]) -> dict[str, Any]:
        """The fewest workers with the least waiting there, if other programs leave the cores alone."""
        from pipeprof.simulate.knobs import change
        from pipeprof.simulate.predict import predict

        knobs = change(replace(demands.measured, neighbours=0.0), place)
        stalls = {count: predict(demands, replace(knobs, workers=count)).stall.value for count in WORKERS}
        least = min(stalls.values())
        workers = next(count for count, stall in stalls.items() if stall <= least + 0.01)
        keep = place.get("storage.keep")
        said = {"tier": place["storage.tier"], "keep": keep, "workers": workers}
        return {**said, "predicted_stall": stalls[workers], "stall": None}

    def _tuned(self, out: Path, place: dict[str, str]) -> dict[str, Any]:
        """What tuning found there, and how long the accelerator waited in the run that confirmed it."""
        from pipeprof.analyse.answer import load as answer_of
        from pipeprof.measure.lesson import lesson_directory
        from pipeprof.scenario import load
        from pipeprof.simulate.tune import tune_scenario

        overrides = [f"{key}={value}" for key, value in place.items()]
        overrides += ["loader.workers=1", "loader.persistent_workers=true"]  # tuning starts from there
        scenario = load(lesson_directory() / "2_ssd.yaml", overrides)[0]
        directory = out / self.name / "-".join(place.values())
        if directory.exists():  # of an attempt that was broken off
            shutil.rmtree(directory)
        try:
            tuned, _ = tune_scenario(scenario, self.budget_s, directory)
        except InconclusiveError as error:
            return {"why": error.problem}
        best = tuned.best
        runs = [answer_of(path.parent) for path in directory.glob("*/run.json")]
        stalls = [one.verdict.stall_share for one in runs if _is(one.run.meta, best.workers, best.prefetch)]
        stall = stalls[0] if stalls else None
        told = {"workers": best.workers, "prefetch": best.prefetch if best.workers else None, "stall": stall}
        return {**told, "trials": len(tuned.trials), "agreed": tuned.agreed}


def _is(meta: dict[str, Any], workers: int, prefetch: int) -> bool:
    """Whether a run had this setting."""
    loader = meta["scenario"]["resolved"]["loader"]
    return loader["workers"] == workers and (not workers or (loader["prefetch"] or 2) == prefetch)
