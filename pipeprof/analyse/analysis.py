"""A run, analysed: who owned its time and what that means. Nothing is predicted here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeprof.analyse.choice import candidates
from pipeprof.analyse.counts import Counts, SingleReads, count, single_reads
from pipeprof.analyse.doubts import doubts_about, doubts_about_record
from pipeprof.analyse.figures import Facts, gather
from pipeprof.analyse.ledger.attribution import Attribution, Ledger, attribute
from pipeprof.analyse.notebook import SlowSample, as_html, slowest_samples
from pipeprof.analyse.rates import throughput, utilization
from pipeprof.analyse.resources.own_cost import read_own_cost
from pipeprof.analyse.sentence import state
from pipeprof.analyse.verdict import (
    ENOUGH,
    TOO_FEW_STEPS,
    Doubt,
    Measured,
    NamedLoader,
    Outside,
    Verdict,
    judge,
)
from pipeprof.analyse.why.lines import read_lines
from pipeprof.analyse.why.transfer import way_of
from pipeprof.errors import PipeprofError
from pipeprof.record import reader
from pipeprof.record.choice import read_choice
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import Run
from pipeprof.record.schema import TABLES
from pipeprof.suggest import nearest
from pipeprof.timeline import Timeline, read_timeline
from pipeprof.vocabulary import causes, fixes


@dataclass(frozen=True, repr=False)
class Analysis:
    """A run with its analysis. `attribution`, `ledger` and `facts` are None if no step was measured."""

    run: Run
    timeline: Timeline
    attribution: Attribution | None
    facts: Facts | None
    ledger: Ledger | None
    verdict: Verdict

    @cached_property
    def counts(self) -> Counts | None:
        """Return percentiles, balance between workers, and drift; None if no step was measured."""
        return None if self.attribution is None else count(self.run, self.attribution)

    @cached_property
    def single_reads(self) -> SingleReads:
        """Return percentiles of the reads that were recorded individually."""
        return single_reads(self.run)

    loader: int | None = None
    """The loader that this analysis is limited to; None for all."""

    def table(self, name: str) -> pa.Table:
        """Return a table of the record: `steps`, `batches`, `stages`, `spans`, `events`, `lines` and others.

        Raises `PipeprofError` if there is no table of that name.
        """
        if name not in TABLES:
            raise PipeprofError(f"a run has no table {name!r}", nearest(name, TABLES))
        return self.run.table(name)

    def slowest(self, number: int = 20) -> list[SlowSample]:
        """Return the slowest sample of each of the `number` slowest batches, slowest first."""
        return slowest_samples(self.run, number)

    def __repr__(self) -> str:
        return f"<run {self.run.directory}: {self.verdict}>"

    def _repr_html_(self) -> str:
        return as_html(self.verdict)

    def loader_name(self, loader: int) -> str:
        """Return a loader's name, with its number if several share the name."""
        return _loader_name(self.run.meta, loader)


def _loader_name(meta: RunMeta, loader: int) -> str:
    """Return a loader's name, with its number if others have the same name."""
    name = meta.loader(loader).name or f"loader {loader}"
    alike = [candidate for candidate in meta.loaders if candidate.name == name]
    return f"{name} ({loader})" if len(alike) > 1 else name


def analyse(run: Run, loader: str | None = None) -> Analysis:
    """Analyse an open run: all of it, or the steps of one loader alone, by its name or its number.

    Raises `PipeprofError` if the run has no such loader.
    """
    asked = None if loader is None else _find(run.meta, loader)
    attribution = attribute(run, loader=asked)
    if attribution is None:
        doubt = Doubt(TOO_FEW_STEPS, "no step was measured", ENOUGH, True)
        doubts = (doubt, *doubts_about_record(run))
        verdict = Verdict(None, causes.INCONCLUSIVE.word, fixes.NONE.word, None, None, doubt.name, doubts)
        verdict = replace(verdict, measured=_measured(run, None), statement=state(verdict, None))
        return Analysis(run, read_timeline(run), None, None, None, verdict, asked)
    facts = gather(run, attribution)
    verdict = judged(run, attribution, facts, asked)
    measured = _measured(run, attribution)
    statement = state(verdict, facts, measured.utilization_kind)
    verdict = replace(verdict, measured=measured, statement=statement)
    return Analysis(run, attribution.timeline, attribution, facts, attribution.whole, verdict, asked)


def judged(run: Run, attribution: Attribution, facts: Facts, loader: int | None = None) -> Verdict:
    """Judge a run, naming the fix that is recorded for it; its words and figures are left out."""
    verdict = judge(attribution, facts, doubts_about(run, attribution, facts), run)
    return verdict if loader is not None else _with_recorded_fix(verdict, run, facts)


def _find(meta: RunMeta, loader: str) -> int:
    numbers = [
        candidate.id
        for candidate in meta.loaders
        if loader in (_loader_name(meta, candidate.id), candidate.name, str(candidate.id))
    ]
    if not numbers:
        names = ", ".join(_loader_name(meta, candidate.id) for candidate in meta.loaders) or "none"
        raise PipeprofError(f"the run has no loader {loader!r}", f"it has {names}")
    return numbers[0]


def _with_recorded_fix(verdict: Verdict, run: Run, facts: Facts) -> Verdict:
    """Name the fix that a prediction chose for this run and this cause, if one is recorded."""
    recorded = read_choice(run.directory)
    if recorded is None or (recorded.cause, recorded.detail) != (verdict.cause, verdict.detail):
        return verdict
    if recorded.fix not in (*candidates(verdict.finding, facts), fixes.NONE.word):
        return verdict
    return verdict.advising(recorded.fix, facts, recorded.fix_basis)


def _measured(run: Run, attribution: Attribution | None) -> Measured:
    """Read the figures that are shown with the verdict."""
    meta = run.meta
    if attribution is None:
        return Measured(run.status, emulated=meta.emulated, not_observed=meta.not_observed)
    device = meta.accelerator
    used, kind = utilization(attribution, device)
    ledger = attribution.whole
    return Measured(
        run.status,
        ledger.window.wall_ns,
        ledger.ledger_ns,
        ledger.path_ns,
        used,
        kind,
        throughput(attribution)[0],
        int(attribution.timeline.measured.sum()),
        meta.emulated,
        attribution.not_observed,
        Outside(attribution.pauses_ns, attribution.startup_ns),
        *_loaders(run, attribution),
        way_of(run, attribution.timeline).means(),
        read_own_cost(run),
    )


def _loaders(run: Run, attribution: Attribution) -> tuple[NamedLoader, tuple[NamedLoader, ...]]:
    """Return the main loader, and the others that measured steps took batches from."""
    t = attribution.timeline
    kinds = np.unique(t.kinds[t.measured]).tolist()
    named = {kind: _named(run, kind) for kind in kinds}
    main = named.pop(attribution.main_loader)
    return main, tuple(named.values())


def _named(run: Run, number: int) -> NamedLoader:
    known = run.meta.loader(number)
    file = None if known.file is None else read_lines(run).shown(known.file)
    return NamedLoader(number, _loader_name(run.meta, number), file, known.line, known.in_library)


def load(path: Path | str, loader: str | None = None) -> Analysis:
    """Open and analyse a run directory. Raises `TraceError` if there is none.

    `loader` restricts the analysis to the steps of one loader, by its name or its number.
    """
    return analyse(reader.load(path), loader)
