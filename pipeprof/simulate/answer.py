"""One run, answered with its predictions: what `pipeprof.load` returns.

The verdict's fix is the one whose predicted gain is largest. Where the run cannot be predicted from, the
answer is that of the analysis alone and `unpredicted` says why.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from pipeprof import trace
from pipeprof.analyse.answer import Answer as Analysed
from pipeprof.analyse.answer import answer as analyse
from pipeprof.analyse.fixes import IN_VAIN
from pipeprof.errors import PipeprofError
from pipeprof.simulate.demands import Demands
from pipeprof.simulate.fixes import Ranked, headspace, rank
from pipeprof.simulate.knobs import Knobs
from pipeprof.simulate.neighbours import open_run
from pipeprof.simulate.predict import Estimate, Prediction, replay
from pipeprof.trace import Run

VAIN: Final = (
    "the remote place gave all that it could: what it gives to more or to fewer readers is not known, and is "
    "predicted as if it had no limit"
)


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
    headspace_samples_per_s: Estimate | None = None
    unpredicted: str = ""
    """Why there are no predictions."""


def answer(run: Run) -> Answer:
    """Analyse an open run and predict from it."""
    analysed = analyse(run)
    try:
        demands = open_analysed(analysed)
        base, ranked = rank(demands)
        played, space = replay(demands), headspace(demands, base)
    except PipeprofError as error:
        return _with(analysed, unpredicted=str(error))
    fixes = without(ranked, in_vain(analysed), demands.measured)
    weighed = analysed.with_gains(_gains(fixes))
    return _with(
        weighed,
        demands=demands,
        replay=played,
        base=base,
        fixes=tuple(fixes),
        headspace_samples_per_s=space,
    )


def open_analysed(analysed: Analysed) -> Demands:
    """The demands of an analysed run; where more readers would get no more of its storage they note it.

    Raises as `open_run` does.
    """
    demands = open_run(analysed.run)
    return replace(demands, notes=(*demands.notes, VAIN)) if in_vain(analysed) else demands


def in_vain(analysed: Analysed) -> tuple[str, ...]:
    """Words of the fixes that get no more out of the place where the data is, whatever is predicted."""
    verdict = analysed.verdict
    return IN_VAIN.get(verdict.detail, ()) if verdict.cause == "storage-network" else ()


def without(ranked: Sequence[Ranked], vain: Collection[str], measured: Knobs) -> list[Ranked]:
    """The fixes but for those in `vain`, and for others that bring more workers where those are in vain."""
    most = measured.workers if "more-workers" in vain else None
    return [
        one for one in ranked if one.fix.word not in vain and (most is None or one.fix.knobs.workers <= most)
    ]


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
