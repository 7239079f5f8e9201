"""The predictions of claim 10: each run from the first, and what many accelerators would need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pipeprof import units
from pipeprof.lesson.results import LessonRun, Results
from pipeprof.lesson.tuning import TARGET
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.knobs import Knobs, change
from pipeprof.simulate.matrix_predictions import Pair
from pipeprof.simulate.predict import Prediction, Predictor

STEPS: Final = 200
"""Steps of each prediction: shares in percent need no more."""
PREDICTED: Final = ("1_hdd", "2_ssd", "2_nvme", "3_ram", "4_workers", "4_elsewhere")
PLACE_NAMES: Final = {
    "hdd": "hard disk",
    "ssd": "SSD",
    "nvme": "NVMe SSD",
    "ram": "in RAM",
    "network": "network storage",
}
CORES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
MOST_CORES: Final = CORES[-1]
SCALES: Final = (
    ("1 accelerator", 1, 1),
    ("8 accelerators in one machine", 8, 1),
    ("64 such machines, shared storage", 8, 64),
)
"""(label, accelerators a machine, machines)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A number of accelerators on machines like the measured one: what they get, and what they would need."""

    label: str
    nodes: int
    stall: float
    """Share of the time that they wait as the machine is."""
    cores: int | None
    """The fewest of a machine that bring it under `TARGET`, the data in RAM; None if none do."""
    stall_in_memory: float
    """The same with that many cores and the data in RAM."""
    storage_bytes_per_s: float


def pairs_of(results: Results) -> list[Pair]:
    """Predict the runs of claims 1 to 4 from the run `1_hdd`, which must be there.

    Raises `PipeprofError` if it cannot be predicted from.
    """
    first = results.runs["1_hdd"].analysis
    predictor = Predictor(open_run(first.run, first.attribution))
    demands = predictor.demands
    pairs = []
    for run in (run for name in PREDICTED for run in results.of(name)):
        if run.rate:
            knobs = change(demands.measured, question(run), demands.step_ns)
            pairs.append(Pair(setting(run), predictor.predict(knobs, STEPS), run.rate, run.stall))
    return pairs


def question(run: LessonRun) -> dict[str, str]:
    """Return the knobs of a run as a question to the simulator."""
    loader, storage = run.settings.loader, run.settings.storage
    asked = {"storage.tier": str(storage.tier), "loader.workers": str(loader.workers or 0)}
    if loader.prefetch:
        asked["loader.prefetch"] = str(loader.prefetch)
    if storage.keep == "decoded":
        asked["storage.keep"] = "decoded"
    return asked


def setting(run: LessonRun) -> str:
    """Return the knobs of a run in words: `SSD, 4 workers, prefetch 2`."""
    loader, storage = run.settings.loader, run.settings.storage
    tier, count = str(storage.tier), loader.workers or 0
    parts = [PLACE_NAMES.get(tier, tier), *(["decoded"] if storage.keep == "decoded" else [])]
    parts.append(units.plural(count, "worker") if count else "no workers")
    parts += [f"prefetch {loader.prefetch}"] if loader.prefetch else []
    return ", ".join(parts)


def scales(run: LessonRun) -> list[Scale]:
    """Predict one, eight and 512 accelerators from one run. Raises `PipeprofError` if it cannot be."""
    predictor = Predictor(open_run(run.analysis.run, run.analysis.attribution))
    return [_scale(predictor, run, *scale) for scale in SCALES]


def _scale(predictor: Predictor, run: LessonRun, label: str, ranks: int, nodes: int) -> Scale:
    here = replace(predictor.demands.measured, ranks=ranks, nodes=nodes, neighbours=0.0)
    now = predictor.predict(here, STEPS // 2)
    cores, then = _enough_cores(predictor, here)
    needed = (run.top_rate or 0.0) * ranks * nodes * (run.bytes_per_sample or 0.0)
    return Scale(label, nodes, now.stall.value, cores, then.stall.value, needed)


def _enough_cores(predictor: Predictor, knobs: Knobs) -> tuple[int | None, Prediction]:
    """Find the fewest cores of a machine that bring the waiting under the target, its storage fast enough."""
    free = change(knobs, {"storage.tier": "ram"})
    prediction = None
    for cores in (count for count in CORES if count >= knobs.ranks / 2):
        workers = max(1, min(16, -(-cores // knobs.ranks) + 1))
        prediction = predictor.predict(replace(free, cores=float(cores), workers=workers), STEPS // 2)
        if prediction.stall.value < TARGET:
            return cores, prediction
    assert prediction is not None
    return None, prediction
