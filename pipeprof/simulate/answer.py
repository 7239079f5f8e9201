"""One run, answered with its predictions: what `pipeprof.load` returns.

The verdict's fix is the one whose predicted gain is largest. Where the run cannot be predicted from, the
answer is that of the analysis alone and `unpredicted` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeprof import trace
from pipeprof.analyse.answer import Answer as Analysed
from pipeprof.analyse.answer import answer as analyse
from pipeprof.analyse.fixes import IN_VAIN
from pipeprof.errors import PipeprofError
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.fixes import Ranked, headspace, rank
from pipeprof.simulate.neighbours import open_run
from pipeprof.simulate.predict import Prediction, replay
from pipeprof.simulate.search import HeatMap, heat_map
from pipeprof.trace import Run


@dataclass(frozen=True)
class Answer(Analysed):
    """What a run says, and what other knobs would have given; None where it cannot be predicted from."""

    demands: Demands | None = None
    replay: Prediction | None = None
    """The run predicted from its own demands: beside the measured numbers it shows what to trust."""
    base: Prediction | None = None
    """The long run as it is, which the fixes are compared with."""
    fixes: tuple[Ranked, ...] = ()
    """The largest gain first; those that do not fit in memory last."""
    headspace_samples_per_s: float | None = None
    unpredicted: str = ""
    """Why there are no predictions."""

    @cached_property
    def heat_map(self) -> HeatMap | None:
        """Workers by prefetch on this run's storage."""
        return None if self.demands is None else heat_map(self.demands, self.demands.measured)

    def prediction_as_dict(self) -> dict[str, Any] | None:
        """Fixes, headspace and heat map for JSON; None where the run cannot be predicted from."""
        if self.replay is None or self.base is None or self.heat_map is None:
            return None
        return {
            "replay": self.replay.as_dict(),
            "as_it_is": self.base.as_dict(),
            "headspace_samples_per_s": self.headspace_samples_per_s,
            "fixes": [one.as_dict() for one in self.fixes],
            "heat_map": self.heat_map.as_dict(),
        }


def answer(run: Run) -> Answer:
    """Analyse an open run and predict from it."""
    analysed = analyse(run)
    try:
        demands = open_run(run)
        base, ranked = rank(demands)
        played, space = replay(demands), headspace(demands, base)
    except PipeprofError as error:
        return _with(analysed, unpredicted=str(error))
    vain = IN_VAIN.get(analysed.verdict.detail, ()) if analysed.verdict.cause == "storage-network" else ()
    fixes = [one for one in ranked if one.fix.word not in vain]
    weighed = analysed.with_gains(_gains(fixes))
    return _with(
        weighed,
        demands=demands,
        replay=played,
        base=base,
        fixes=tuple(fixes),
        headspace_samples_per_s=space,
    )


def _gains(fixes: list[Ranked]) -> dict[str, float]:
    """The best predicted gain of each fix that this machine can take."""
    gains: dict[str, float] = {}
    for one in fixes:
        if one.feasible:
            gains[one.fix.word] = max(one.gain, gains.get(one.fix.word, one.gain))
    return gains


def _with(analysed: Analysed, **more: Any) -> Answer:
    return Answer(**{item.name: getattr(analysed, item.name) for item in fields(Analysed)}, **more)


def load(path: Path | str) -> Answer:
    """Open, analyse and predict from a run directory. Raises `TraceError` where there is none."""
    return answer(trace.load(path))
