"""Predictions from one analysed run, each made when it is first asked for.

A forecast holds an analysis and is not one: reading a run predicts nothing. If the run cannot be predicted
from, everything here is empty and `unpredicted` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from time import thread_time
from typing import Any, Final, TypeVar

from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.choice import candidates
from pipeprof.analyse.verdict import Verdict
from pipeprof.analyse.why.lines import read_lines
from pipeprof.errors import PipeprofError
from pipeprof.record.choice import FixBasis, read_choice, write_choice
from pipeprof.simulate import ranking, search
from pipeprof.simulate.catalogue import PossibleFix
from pipeprof.simulate.demands.loader import Demands
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.predict import Estimate, Prediction, Predictor
from pipeprof.simulate.ranking import Calibration, Choice, Ranked, calibrated
from pipeprof.simulate.search import HeatMap
from pipeprof.simulate.tuning.tried import loader_arguments
from pipeprof.vocabulary import causes, fixes

T = TypeVar("T")

VAIN: Final = Extrapolation(
    "the remote place gave all that it could: what it gives to more or to fewer readers is not known, and is "
    "predicted as if it had no limit"
)


PAGE_LIMIT_S: Final = 5.0
"""CPU time after which nothing more is predicted for a report: what is missing says so."""


class Forecast:
    """Predictions of one run under other knobs. Equal questions are simulated once."""

    def __init__(
        self,
        analysis: Analysis,
        seed: int = 0,
        limit_s: float | None = None,
        clock_s: Callable[[], float] = thread_time,
    ) -> None:
        """Begin with nothing predicted.

        After `limit_s` of `clock_s` only the fix is still chosen, and all else left as it is: see
        `unfinished`. None for no limit.
        """
        self.analysis, self.seed = analysis, seed
        self.unfinished = ""
        """Word on what there was no time for; empty if there was for all that was asked."""
        self._limit_s, self._clock_s = limit_s, clock_s
        self._begun_s = clock_s()

    @cached_property
    def ineffective(self) -> tuple[str, ...]:
        """Return the fixes that get no more out of the place where the data is, whatever is predicted."""
        verdict = self.analysis.verdict
        words = [fix.word for fix in causes.record_of(verdict.cause).ineffective(verdict.detail)]
        full = verdict.device is not None and verdict.device.state == "full"
        return tuple(dict.fromkeys([*words, *([fixes.MORE_WORKERS.word] if full else [])]))

    @cached_property
    def predictor(self) -> Predictor:
        """Return the predictor opened on the run.

        Raises `InconclusiveError` if it cannot be predicted from.
        """
        analysis, loader = self.analysis, self.analysis.verdict.measured.loader
        demands = open_run(analysis.run, analysis.attribution, None if loader is None else loader.id)
        if analysis.verdict.device is None and self.ineffective:
            demands = replace(demands, notes=(*demands.notes, VAIN))
        return Predictor(demands, self.seed)

    @cached_property
    def _opened(self) -> tuple[Predictor, Prediction] | str:
        """Open the predictor and the long run as it is, or why there is none."""
        try:
            return self.predictor, self.predictor.base()
        except PipeprofError as error:
            return str(error)

    @property
    def unpredicted(self) -> str:
        """Return the reason for which there are no predictions; empty if there are."""
        return self._opened if isinstance(self._opened, str) else ""

    @property
    def demands(self) -> Demands | None:
        """Return the demands of the run on each resource."""
        return None if isinstance(self._opened, str) else self._opened[0].demands

    @property
    def base(self) -> Prediction | None:
        """Predict the long run as it is, which the fixes are compared with."""
        return None if isinstance(self._opened, str) else self._opened[1]

    def _answer(self, ask: Callable[[Predictor], T]) -> T | None:
        """Ask the predictor; None if the run, or the question, has no answer."""
        if isinstance(self._opened, str):
            return None
        try:
            return ask(self._opened[0])
        except PipeprofError:
            return None

    def _answer_in_time(self, ask: Callable[[Predictor], T]) -> T | None:
        """Ask the predictor what a report can do without, while there is time for it."""
        if isinstance(self._opened, str):
            return None
        self._opened[0].is_late = self._is_late
        try:
            return self._answer(ask)
        finally:
            self._opened[0].is_late = bool

    def _is_late(self) -> bool:
        late = self._limit_s is not None and self._clock_s() - self._begun_s > self._limit_s
        if late and not self.unfinished:
            directory = self.analysis.run.place
            self.unfinished = (
                f"{self._limit_s:g} s of CPU were not enough for all fixes and numbers of workers: "
                f"`pipeprof predict {directory}` takes its time"
            )
        return late

    @cached_property
    def replay(self) -> Prediction | None:
        """Predict the run from its own demands: compared with the measured numbers it shows what to trust."""
        return self._answer(Predictor.replay)

    @property
    def replay_error(self) -> float | None:
        """Return the distance of the replay from the measured throughput, as a share of it."""
        measured = self.analysis.verdict.measured.throughput_samples_per_s
        if self.replay is None or not measured:
            return None
        return self.replay.rate / measured - 1

    @cached_property
    def calibration(self) -> Calibration | None:
        """Return the scale from predictions to what was measured; None if nothing is predicted."""
        measured = self.analysis.verdict.measured.throughput_samples_per_s
        stall_share = self.analysis.verdict.stall_share
        return None if self.base is None else calibrated(self.base, self.replay, measured, stall_share)

    @cached_property
    def best_of_loaders(self) -> Estimate | None:
        """Return the throughput in samples a second if loading were free."""
        calibration, best = self.calibration, self._answer_in_time(ranking.headroom)
        return None if calibration is None or best is None else calibration.rate(best)

    @cached_property
    def fixes(self) -> tuple[Ranked, ...]:
        """Rank every fix of the catalogue: the largest gain first, those that do not fit in memory last."""
        ranked = self._answer_in_time(
            lambda predictor: ranking.rank(predictor, self.ineffective, calibration=self.calibration)
        )
        return tuple(ranked or ())

    @cached_property
    def choice(self) -> Choice:
        """Choose the fix to name, and what is predicted of it.

        Only what bears on the cause is simulated for it.
        """
        facts, finding = self.analysis.facts, self.analysis.verdict.finding
        words = () if facts is None else candidates(finding, facts)
        if facts is None or not words:
            return Choice(fixes.NONE.word)
        ranked = self._answer(
            lambda predictor: ranking.rank(predictor, self.ineffective, words, self.calibration)
        )
        return ranking.choose(ranked or (), finding, facts, self.replay_error)

    @property
    def advice(self) -> list[Ranked]:
        """Return up to three fixes to do that are predicted, the chosen one first if it is."""
        facts = self.analysis.facts
        if self.choice.word == fixes.NONE.word or facts is None:
            return []
        shares = None if self.analysis.ledger is None else self.analysis.ledger.shares
        return ranking.advice(
            self.fixes, self.choice, self.analysis.verdict.finding, facts, self.replay_error, shares
        )

    @cached_property
    def verdict(self) -> Verdict:
        """Return the verdict of the analysis, naming the chosen fix."""
        return self.analysis.verdict.advising(self.choice.word, self.analysis.facts, self._fix_basis)

    @property
    def _fix_basis(self) -> FixBasis:
        """Return `forecast` if predicted gains chose the fix, or left none of those that bear on it."""
        if self.choice.word != fixes.NONE.word:
            return "ledger" if self.choice.ranked is None else "forecast"
        facts, finding = self.analysis.facts, self.analysis.verdict.finding
        asked = facts is not None and candidates(finding, facts)
        return "forecast" if asked and not self.unpredicted else "ledger"

    def as_dict(self) -> dict[str, Any]:
        """Return what `pipeprof report --json` prints: the verdict's figures, and every fix with its gain."""
        advised = {one.fix.title for one in self.advice}
        fixes = [
            {**one.summary(), "place": self.place_of(one.fix) or None, "advised": one.fix.title in advised}
            for one in self.fixes
        ]
        return {
            **self.publish().as_dict(),
            "fixes": fixes,
            "not_predicted": self.unpredicted or self.unfinished or None,
        }

    def arguments_of(self, fix: PossibleFix) -> dict[str, Any]:
        """Return the arguments of the DataLoader that carry a fix out; empty if they alone do not."""
        return {} if self.unpredicted else loader_arguments(self.predictor.demands.measured, fix.knobs)

    def place_of(self, fix: PossibleFix) -> str:
        """Return the line of the user's code that a fix is made at, file:line; empty if not known.

        It is the call of DataLoader, or the line that the owner's time was spent in.
        """
        if fix.owner:
            hot = read_lines(self.analysis.run).hot(fix.owner)
            return next((line.place for line in hot if not line.is_library), "")
        loader = self.analysis.verdict.measured.loader
        return loader.place if fix.is_at_loader and loader is not None else ""

    def publish(self) -> Verdict:
        """Return the verdict for whoever shows it. That of a whole run is recorded beside it with its fix, so
        that nothing which reads the run later names another."""
        choice = self.verdict.choice
        if self.analysis.loader is None and choice != read_choice(self.analysis.run.directory):
            write_choice(self.analysis.run.directory, choice)
        return self.verdict

    @cached_property
    def heat_map(self) -> HeatMap | None:
        """Return the workers and prefetch around the run and its advised place."""
        _ = self.fixes  # a cell that is a fix has its prediction
        chosen = self.choice.ranked
        counted = chosen is not None and chosen.fix.word in ranking.COUNTED
        advised = (chosen.fix.knobs.workers, chosen.fix.knobs.prefetch) if chosen and counted else None
        return self._answer_in_time(lambda predictor: search.small_map(predictor, advised))
