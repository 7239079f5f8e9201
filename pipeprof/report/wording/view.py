"""One run, ready to be shown: read once from its verdict for every output, without any layout.

The terminal, the page and the tables are siblings over this view, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote as quoted
from typing import Final

from pipeprof import units
from pipeprof.analyse.resources.own_cost import CostPerBatch, ModelledCost, OwnCost, Thinned
from pipeprof.analyse.verdict import Doubt, Measured, Outside, Verdict
from pipeprof.analyse.why.lines import HotLine
from pipeprof.analyse.why.transfer import Transfer
from pipeprof.record.meta import LoaderMeta, RunMeta
from pipeprof.record.reader import Run
from pipeprof.report.wording import words
from pipeprof.vocabulary import bands, causes, fixes, owners
from pipeprof.vocabulary.utilization import UtilizationKind, label_of


@dataclass(frozen=True, slots=True)
class Owned:
    """Time of one owner, in the accelerator's day and on the critical path."""

    owner: str
    label: str
    colour: str
    how: str
    ledger_ns: int
    ledger_share: float
    path_ns: int | None
    path_share: float | None
    step_ns: float | None


@dataclass(frozen=True, slots=True)
class RunView:
    """Run, ready to be shown."""

    name: str
    directory: str
    status: str
    created: str
    headline: str
    """The verdict in one sentence: what happened, and why."""
    evidence: str
    """The figures that show it, in one sentence; may be empty."""
    mechanism: str | None
    """The label of the mechanism; None if none is established."""
    hot: tuple[HotLine, ...]
    band: str | None
    cause: str
    fix: str
    warning: str | None
    """The harm that the fix does, if it applies."""
    detail: str | None
    stall_share: float | None
    stall_interval: tuple[float, float] | None
    stall_ns: int | None
    wall_ns: int | None
    utilization: float | None
    utilization_kind: UtilizationKind | None
    throughput: float | None
    steps: int
    owned: tuple[Owned, ...]
    doubts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    emulated: tuple[str, ...]
    not_observed: tuple[str, ...]
    chips: tuple[str, ...]
    outside: Outside
    """Time that is not part of `wall_ns`."""
    loader: LoaderMeta
    """The one that cause, fix and settings are of."""
    loader_name: str
    loader_place: str
    """The call that made it, file:line; empty if not observed."""
    other_loaders: tuple[str, ...]
    meta: RunMeta
    transfer: Transfer | None
    """Parts of a batch's way from its worker, on average; None if not observed."""
    own_cost: OwnCost | None
    """The cost of observing, measured in the run; None if no batch was recorded."""

    @property
    def step_ns(self) -> float | None:
        """Return the mean time of a step; None if none was measured."""
        return self.wall_ns / self.steps if self.wall_ns and self.steps else None

    @property
    def healthy(self) -> bool:
        """Return True if nothing in the loader is worth fixing."""
        return self.band == bands.NOT.word and self.cause in (causes.ACCELERATOR.word, None)

    @property
    def inconclusive(self) -> bool:
        """Return True if the run does not show what was waited for; `evidence` is then what to do."""
        return self.cause == causes.INCONCLUSIVE.word

    @property
    def reason(self) -> str:
        """Explain why the place is expensive: the mechanism's label, if there is one, and the figures."""
        if self.inconclusive:
            return ""
        if self.mechanism is None:
            return self.evidence
        return f"{self.mechanism[:1].upper()}{self.mechanism[1:]}: {self.evidence}"

    @property
    def next_step(self) -> str:
        """Return the fix with the harm that applies, or why there is no fix; empty if that is not known.

        For an inconclusive run, it is what would make it conclusive.
        """
        known = fixes.BY_WORD[self.fix]
        if known is fixes.NONE:
            return self.evidence if self.inconclusive else self.no_fix
        return f"{known.do}. Careful: {self.warning}" if self.warning else f"{known.do}."

    @property
    def no_fix(self) -> str:
        """Return why nothing in the loader bears on the cause; empty if something may."""
        cause = causes.record_of(self.cause)
        if self.fix != fixes.NONE.word or cause is causes.INCONCLUSIVE or cause.candidates(self.detail):
            return ""
        return f"Nothing in the loader: {cause.no_fix}."

    @property
    def utilization_name(self) -> str:
        """Return the name of the utilisation figure, which says whether it is emulated."""
        return label_of(self.utilization_kind)


def view_of(run: Run, verdict: Verdict) -> RunView:
    """Return the view of a run with its verdict. Missing values are None and print as "not observed"."""
    meta, measured = run.meta, verdict.measured
    wall, stall = measured.wall_ns, verdict.stall_share
    first = meta.loaders[0] if meta.loaders else LoaderMeta(0)
    loader = first if measured.loader is None else meta.loader(measured.loader.id)
    others = tuple(other.name for other in measured.other_loaders)
    return RunView(
        name=meta.name or Path(run.place).name,
        directory=run.place,
        status=measured.status,
        created=units.moment(meta.created_at),
        headline=verdict.statement.headline,
        evidence=verdict.statement.evidence,
        mechanism=verdict.shown.mechanism.label if verdict.shown else None,
        hot=verdict.hot,
        band=verdict.band,
        cause=verdict.cause,
        fix=verdict.fix,
        warning=verdict.warning,
        detail=verdict.detail,
        stall_share=stall,
        stall_interval=verdict.stall_interval,
        stall_ns=round(stall * wall) if stall is not None and wall else None,
        wall_ns=wall,
        utilization=measured.utilization,
        utilization_kind=measured.utilization_kind,
        throughput=measured.throughput_samples_per_s,
        steps=measured.steps,
        owned=_owned(measured),
        doubts=tuple((doubt.problem, doubt.remedy) for doubt in _further_doubts(verdict)),
        warnings=meta.warnings,
        emulated=measured.emulated,
        not_observed=measured.not_observed,
        chips=chips(loader, measured.steps, others),
        outside=measured.outside or Outside(0, 0),
        loader=loader,
        loader_name=measured.loader.name if measured.loader else loader.name,
        loader_place=measured.loader.place if measured.loader else "",
        other_loaders=others,
        meta=meta,
        transfer=measured.transfer,
        own_cost=measured.own_cost,
    )


def _further_doubts(verdict: Verdict) -> list[Doubt]:
    """Return the doubts except the one that the verdict itself gives as its reason."""
    said = verdict.detail if verdict.cause == causes.INCONCLUSIVE.word else None
    return [doubt for doubt in verdict.doubts if not (doubt.decisive and doubt.name == said)]


def stall_line(said: RunView) -> str:
    """Return how much of the time was spent waiting, how sure that is, and the band."""
    if said.stall_share is None:
        return "No step was measured."
    band, wall = bands.label_of(said.band), units.duration(said.wall_ns)
    if said.inconclusive:
        band = NO_VERDICT
    if not said.stall_ns:
        return f"{band[:1].upper()}{band[1:]}: no measurable stall in {wall}."
    interval = units.interval(said.stall_interval)
    sure = f" (95% CI {interval})" if interval else ""
    perhaps = "" if said.inconclusive else _perhaps(said)
    return f"Waiting for data: {units.percent(said.stall_share)} of {wall}{sure}, {band}{perhaps}."


def _perhaps(said: RunView) -> str:
    """Return the other bands that the interval reaches into: `, perhaps moderately`; mostly nothing."""
    ends = [bands.band_of(end).word for end in said.stall_interval or ()]
    others = [word for word in dict.fromkeys(ends) if word != said.band]
    return f", perhaps {' or '.join(others)}" if others else ""


def cost_line(said: RunView, price_per_hour: float | None) -> str:
    """Return what waiting costs at the price of an hour; empty without a price, a wait or a verdict."""
    if price_per_hour is None or not said.stall_ns or said.stall_share is None or said.inconclusive:
        return ""
    hour = units.digits(said.stall_share * price_per_hour)
    run = units.digits(price_per_hour * said.stall_ns / units.NS_PER_S / 3600)
    return f"At {price_per_hour:g} an hour, waiting for data costs {hour} an hour, and {run} in this run."


NO_VERDICT: Final = "no verdict"
WORTH_A_LINE: Final = 0.01
"""Time outside the loop is mentioned if it is at least this share of the loop's."""


def transfer_line(said: RunView) -> str:
    """Return the parts of a batch's way if that is the cause; empty elsewhere, or if none was seen."""
    parts = said.transfer
    if parts is None or said.cause != causes.TRANSFER.word:
        return ""
    duration, size = units.duration, units.size
    return (
        f"Transfer of a batch: pickling {duration(parts.pickling_ns)}, pipe {duration(parts.pipe_ns)} "
        f"({size(parts.sent_bytes)}), receiving {duration(parts.receiving_ns)} "
        f"({size(parts.tensor_bytes)} of tensors)."
    )


def own_cost_text(own: OwnCost | None, step_ns: float | None = None) -> str:
    """Return what observing cost a batch, as the run itself measured it, or why that is not known.

    `step_ns` is the time of a step, of which the loop's thread has a share to bear.
    """
    if own is None:
        return units.NOT_OBSERVED
    parts = [_cost(own.main, "the loop's thread", step_ns)]
    if own.workers is not None:
        parts.append(_cost(own.workers, "a worker", None))
    if all(part is None for part in parts):
        few = "too-short" in (own.main.state, own.workers and own.workers.state)
        least = units.count(own.needed_batches)
        return f"not measured: it takes {least} batches of one loader" if few else "not measured here"
    modelled = (
        (own.calls, "the loop's calls into and out of the proxies, by a model"),
        (own.worker_calls, "a worker's, by the same"),
    )
    parts += [_with_interval(calls, what) for calls, what in modelled if calls is not None]
    beside = (
        (own.threads_ns, "the threads that write and sample"),
        (own.handover_ns, "the times in a batch's pickle"),
    )
    parts += [f"{what}: {units.duration(ns)} a batch" for ns, what in beside if ns is not None]
    parts.append(thinned_text(own))
    return "; ".join(part for part in parts if part)


def thinned_text(own: OwnCost) -> str:
    """Return from where on not all was looked at, on which side, and how to change that; empty if all was."""
    batches = "batches" if own.workers is None else "of the workers' batches"
    sides = ((own.thinned, "batch", batches), (own.thinned_steps, "step", "of the loop's steps"))
    parts = [_looked_at(thinned, unit, all_of) for thinned, unit, all_of in sides if thinned is not None]
    if not parts:
        return ""
    return (
        f"it looked {' and '.join(parts)}, which {'stands' if len(parts) == 1 else 'stand'} for the others, "
        "since looking at all took more than 1% (--every-batch looks at all)"
    )


def _looked_at(thinned: Thinned, unit: str, all_of: str) -> str:
    number = units.digits(thinned.batches / max(1, thinned.probed), 2)
    return f"at one of {number} {all_of} from {unit} {units.count(thinned.first)} on"


def _cost(cost: CostPerBatch, of_whom: str, step_ns: float | None) -> str | None:
    """Return the cost to one thread; None if it was not measured."""
    if cost.state == "below-noise":
        return (
            f"{of_whom}: not measurable here, below {units.duration(max(cost.high_ns or 0.0, 0.0))} a batch"
        )
    if cost.cost_ns is None:
        return None
    share = f", {units.percent(cost.cost_ns / step_ns)} of a step" if step_ns else ""
    return f"{_with_interval(cost, of_whom)}{share}"


def _with_interval(cost: CostPerBatch | ModelledCost, what: str) -> str:
    duration = units.duration
    return f"{what}: {duration(cost.cost_ns)} a batch ({duration(cost.low_ns)} to {duration(cost.high_ns)})"


def own_cost_line(said: RunView) -> str:
    """Return the own cost as a note below a report; empty if the run has not measured it."""
    own = said.own_cost
    if own is None or not (own.main.blocks or (own.workers is not None and own.workers.blocks)):
        return ""
    return f"Cost of observing, measured in this run: {own_cost_text(own, said.step_ns)}."


def outside_line(said: RunView) -> str:
    """Return what was left out of the measured time; empty if that is next to nothing."""
    parts = (
        (said.outside.pauses_ns, "between the loops"),
        (said.outside.startup_ns, "until the workers had started"),
    )
    least = WORTH_A_LINE * (said.wall_ns or 0)
    outside = [f"{units.duration(ns)} {what}" for ns, what in parts if ns > least]
    return f"Not counted: {' and '.join(outside)}." if outside and said.wall_ns else ""


def loader_line(said: RunView) -> str:
    """Return which of several loaders the figures are of, and how to see others; empty if it is one."""
    if not said.other_loaders:
        return ""
    others = " or ".join(f"--loader {quoted(name)}" for name in said.other_loaders[:3])
    return (
        f"Cause, fix and settings are of the loader {quoted(said.loader_name)}. "
        f"For another: pipeprof report {quoted(said.directory)} {others}"
    )


def changed_lines(meta: RunMeta) -> list[str]:
    """Return, for each loader, the arguments that were set from outside in place of the script's."""
    lines = dict.fromkeys(
        f"{each.name}: "
        + ", ".join(f"{change.argument}={change.value} (script: {change.script})" for change in each.changed)
        for each in meta.loaders
        if each.changed
    )
    return list(lines)


def _owned(measured: Measured) -> tuple[Owned, ...]:
    ledger, path, steps = measured.ledger_ns or {}, measured.path_ns or {}, measured.steps
    total, length = sum(ledger.values()), sum(path.values())
    rows = []
    for name in sorted({*ledger, *path}, key=owners.order_of):
        owner = words.drawn(name)
        ns, on_path = int(ledger.get(name, 0)), (int(path.get(name, 0)) if path else None)
        rows.append(
            Owned(
                owner=name,
                label=owner.label,
                colour=owner.colour,
                how=owner.how,
                ledger_ns=ns,
                ledger_share=ns / total if total else 0.0,
                path_ns=on_path,
                path_share=on_path / length if on_path is not None and length else None,
                step_ns=ns / steps if steps else None,
            )
        )
    return _folded([row for row in rows if row.ledger_ns or row.path_ns])


TINY: Final = 0.0005
"""Owners below this share in both views stand together as one: they round to 0.0%."""


def _folded(rows: list[Owned]) -> tuple[Owned, ...]:
    tiny = [row for row in rows if max(row.ledger_share, row.path_share or 0.0) < TINY]
    if len(tiny) < 2:
        return tuple(rows)
    others = words.drawn(words.OTHERS)
    together = Owned(
        words.OTHERS,
        others.label,
        others.colour,
        ", ".join(row.label for row in tiny),
        sum(row.ledger_ns for row in tiny),
        sum(row.ledger_share for row in tiny),
        sum(row.path_ns or 0 for row in tiny),
        sum(row.path_share or 0.0 for row in tiny),
        sum(row.step_ns or 0.0 for row in tiny),
    )
    return (*(row for row in rows if row not in tiny), together)


def chips(loader: LoaderMeta, steps: int, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the knobs of a loader in a few words each, and how many others there are."""
    said = []
    if loader.workers is not None:
        said.append(units.plural(loader.workers, "worker") if loader.workers else "no workers")
    if loader.workers and loader.prefetch is not None:
        said.append(f"prefetch {loader.prefetch}")
    if loader.batch_size is not None:
        said.append(f"batch {loader.batch_size}")
    if loader.pin_memory:
        said.append("pinned")
    if loader.in_order is False:
        said.append("out of order")
    said.append(units.plural(steps, "measured step"))
    if others:
        said.append(f"one of {units.plural(len(others) + 1, 'loader')}")
    return tuple(said)
