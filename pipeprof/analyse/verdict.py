"""The step from a ledger to a verdict: band, cause, fix, evidence, doubts, and its form for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pipeprof.analyse.causes import Finding, find_cause
from pipeprof.analyse.choice import choose
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.harm import warning
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.rates import stall_interval
from pipeprof.analyse.resources.device import StorageState
from pipeprof.analyse.resources.own_cost import OwnCost
from pipeprof.analyse.resources.page_cache import PageCache
from pipeprof.analyse.why.explain import explained
from pipeprof.analyse.why.lines import HotLine
from pipeprof.analyse.why.observed import Observed
from pipeprof.analyse.why.shown import Shown
from pipeprof.analyse.why.transfer import Transfer
from pipeprof.record.choice import FixBasis, RecordedChoice
from pipeprof.record.reader import Run
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import causes, fixes, mechanisms
from pipeprof.vocabulary.bands import BandWord, band_of
from pipeprof.vocabulary.utilization import UtilizationKind

JSON_SCHEMA: Final = 1

MIN_STEPS: Final = 20
"""Number of steps after warm-up below which a run is inconclusive."""
MIN_WALL_NS: Final = 2 * NS_PER_S
"""Time of the measured window below which a run is inconclusive: a few steps of other programs fill it."""
ENOUGH: Final = f"measure at least {MIN_STEPS} steps and {MIN_WALL_NS // NS_PER_S} s, such as more epochs"
"""Remedy of a run that is too short."""
TOO_FEW_STEPS: Final = "too-few-steps"
TOO_SHORT: Final = "too-short"
WIDE_INTERVAL: Final = "wide-interval"
TOO_LITTLE: Final = (TOO_FEW_STEPS, TOO_SHORT)
"""Names of the doubts about how little was measured."""
NEEDS_MORE_STEPS: Final = (*TOO_LITTLE, WIDE_INTERVAL)
"""Names of the doubts that a longer run resolves."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason to trust the verdict less, with what to do about it."""

    name: str
    problem: str
    remedy: str
    decisive: bool = False
    """True if the verdict is `inconclusive` for it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A verdict in words."""

    headline: str
    """Sentence that says what happened, and why."""
    evidence: str = ""
    """Sentence with the figures that show it; empty if there are none."""
    line: str = ""
    """Sentence on the line of code that the time was spent in; empty if none was sampled."""

    @property
    def text(self) -> str:
        """Return all of it, as one text."""
        return " ".join(part for part in (self.headline, self.evidence, self.line) if part)


@dataclass(frozen=True, slots=True)
class Outside:
    """Time outside of any loop: shown with the verdict and not part of any share."""

    pauses_ns: int
    """Time between passes over the loaders, in the measured window: evaluation, checkpoints, a user's
    pause."""
    startup_ns: int
    """Time of the whole run in which workers started for the first time."""


@dataclass(frozen=True, slots=True)
class NamedLoader:
    """A loader with its number in the record and its name."""

    id: int
    name: str
    file: str | None = None
    """Source file of the call that made it, as hot lines have it; None if not observed."""
    line: int | None = None
    in_library: bool | None = None
    """True if a library makes it, and not the user's code."""

    @property
    def place(self) -> str:
        """Return the call in the usual form, file:line; empty if not observed."""
        return f"{self.file}:{self.line}" if self.file and self.line else ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of the measured window that are shown with a verdict; None if not observed."""

    status: str
    wall_ns: int | None = None
    ledger_ns: Mapping[str, int] | None = None
    path_ns: Mapping[str, int] | None = None
    utilization: float | None = None
    """Busy share of the accelerator, 0 to 1."""
    utilization_kind: UtilizationKind | None = None
    throughput_samples_per_s: float | None = None
    steps: int = 0
    """Number of steps after warm-up."""
    emulated: tuple[str, ...] = ()
    not_observed: tuple[str, ...] = ()
    outside: Outside | None = None
    loader: NamedLoader | None = None
    """Loader that cause, fix and settings are of."""
    other_loaders: tuple[NamedLoader, ...] = ()
    """Other loaders that measured steps took batches from."""
    transfer: Transfer | None = None
    """Parts of a batch's way from its worker, on average; None if no batch's way was observed."""
    own_cost: OwnCost | None = None
    """The cost of observing, measured in the run; None if no batch was recorded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Band, cause and fix of a run, with the evidence; `str()` gives it as sentences."""

    band: BandWord | None
    cause: str
    fix: str
    stall_share: float | None
    stall_interval: tuple[float, float] | None
    detail: str | None = None
    doubts: tuple[Doubt, ...] = ()
    evidence: tuple[tuple[str, Any], ...] = ()
    """Named figures that carried the decision, such as ('reads_per_batch', 64)."""
    mechanism: str | None = None
    """Reason why the cause's owner is expensive; None if no counter of its own shows it."""
    mechanism_share: float | None = None
    hot: tuple[HotLine, ...] = ()
    fix_basis: FixBasis = "ledger"
    """`forecast` if predicted gains chose the fix, `ledger` if the time's owner alone did."""
    warning: str | None = None
    """The harm that the fix does, if it applies to this run."""
    statement: Statement = Statement("")
    measured: Measured = Measured("unknown")

    shown: Shown | None = None
    """The mechanism, with what shows it."""
    charged: str | None = None
    """Owner under which the ledger holds the cause's time, if that differs from the cause's own."""
    share: float | None = None
    """Share of the window that the blamed owner has; None if none is."""
    page_cache: PageCache | None = None
    """Share of the reads that memory served, and will serve in later epochs; None if not known."""
    device: StorageState | None = None
    """State of the device that the data came from; None if none was read, or the data are remote."""

    @property
    def finding(self) -> Finding:
        """Return the cause with its detail, evidence and mechanism."""
        return Finding(self.cause, self.detail, self.evidence, shown=self.shown, share=self.share)

    def __str__(self) -> str:
        return self.sentence

    @property
    def sentence(self) -> str:
        """Return the verdict in words, with the figures that show it."""
        return self.statement.text

    @property
    def choice(self) -> RecordedChoice:
        """Return the part of the verdict that is stored beside the run's record."""
        of_run = self.measured
        return RecordedChoice(
            self.cause,
            self.detail,
            self.fix,
            self.stall_share,
            of_run.throughput_samples_per_s,
            self.mechanism,
            of_run.wall_ns,
            self.fix_basis,
        )

    def __getitem__(self, key: str) -> Any:
        """Return one entry of `as_dict()`, for programs written when a verdict was a dictionary."""
        return self.as_dict()[key]

    def advising(self, fix: str, facts: Facts | None, basis: FixBasis = "ledger") -> Verdict:
        """Return this verdict with another fix, and the warning that this fix carries on this run."""
        return replace(self, fix=fix, fix_basis=basis, warning=warning(fix, facts))

    def as_dict(self) -> dict[str, Any]:
        """Return what `pipeprof report --json` prints: plain values, None if not known."""
        figures = asdict(self.measured)
        return {
            "schema": JSON_SCHEMA,
            "status": figures.pop("status"),
            "verdict": {
                "band": self.band,
                "cause": self.cause,
                "detail": self.detail,
                "mechanism": self.mechanism,
                "mechanism_share": self.mechanism_share,
                "evidence": None if self.shown is None else dict(self.shown.figures),
                "hot": [line.as_dict() for line in self.hot],
                "fix": self.fix,
                "fix_basis": self.fix_basis,
                "warning": self.warning,
                "sentence": self.sentence,
                "stall_share": self.stall_share,
                "stall_interval": list(self.stall_interval) if self.stall_interval else None,
                "doubts": [
                    {"name": doubt.name, "problem": doubt.problem, "remedy": doubt.remedy}
                    for doubt in self.doubts
                ],
            },
            "device": None if self.device is None else self.device.as_dict(),
            "page_cache": None if self.page_cache is None else self.page_cache.as_dict(),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in figures.items()},
        }


def _mechanism_of(doubt: Doubt | None) -> str | None:
    """Return the mechanism that a decisive doubt is named after; None if it is not named after one."""
    return doubt.name if doubt is not None and doubt.name in mechanisms.BY_WORD else None


def judge(
    attribution: Attribution, facts: Facts, doubts: tuple[Doubt, ...] = (), run: Run | None = None
) -> Verdict:
    """Judge the whole measured window; the fix is chosen without a prediction.

    Mechanism and lines are searched for in `run`, if it is given.
    """
    ledger = attribution.whole
    share = ledger.stall_share
    if share is None:
        return Verdict(None, causes.INCONCLUSIVE.word, fixes.NONE.word, None, None, doubts=doubts)
    finding = find_cause(ledger, facts)
    decisive = next((doubt for doubt in doubts if doubt.decisive), None)
    if decisive is not None:
        finding = Finding(causes.INCONCLUSIVE.word, decisive.name, finding.evidence)
    hot: tuple[HotLine, ...] = ()
    if run is not None and finding.owner is not None:
        finding, hot = explained(finding, Observed.of(run, attribution, facts, finding.owner))
    shown = finding.shown
    return Verdict(
        band_of(share).word,
        finding.cause,
        fixes.NONE.word,
        share,
        stall_interval(attribution),
        finding.detail,
        doubts,
        finding.evidence,
        mechanism=shown.mechanism.word if shown else _mechanism_of(decisive),
        mechanism_share=shown.explains * (finding.share or 0.0) if shown else None,
        hot=hot,
        shown=shown,
        charged=finding.charged,
        share=finding.share,
        device=facts.device,
        page_cache=facts.page_cache,
    ).advising(choose(finding, facts), facts)
