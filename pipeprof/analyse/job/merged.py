"""The answer for a job of several ranks: whom the others waited for, why it was late, one ledger a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.causes import HEALTHY, MOSTLY, Finding, cause_of_owner, find_cause
from pipeprof.analyse.choice import choose
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.job.meetings import ClockFit
from pipeprof.analyse.job.shards import ShardRow
from pipeprof.analyse.job.unobserved import Unobserved
from pipeprof.analyse.ledger.attribution import Ledger, stall_in
from pipeprof.analyse.resources import operators
from pipeprof.analyse.sentence import Reason, reason, spent_waiting
from pipeprof.analyse.verdict import TOO_LITTLE, Doubt, Statement, Verdict
from pipeprof.record.choice import RecordedChoice
from pipeprof.timeline import Window
from pipeprof.vocabulary import causes, fixes, owners
from pipeprof.vocabulary.bands import BandWord, band_of

JSON_SCHEMA: Final = 1
CLEARLY_MORE: Final = 0.25
"""Share of a late rank's cost that one shard must carry beyond its share of the steps, to be named."""


@dataclass(frozen=True)
class RankRow:
    """A rank. Its ledger sums to its wall time, with `rank:<r>:<owner>` for what others cost it."""

    rank: int
    node: int | None
    host: str | None
    local_rank: int | None
    directory: Path
    status: str
    steps: int = 0
    wall_ns: int = 0
    ledger_ns: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    facts: Facts | None = None
    verdict: Verdict | None = None
    """Judgement of this rank alone; its figures and words are left out."""
    waited_ns: int = 0
    """Time in meetings, waiting for others to come."""
    cost_ns: Mapping[str, int] = field(default_factory=dict)
    """Time that all others together waited for this rank, by the owner that made it late."""

    @property
    def caused_ns(self) -> int:
        """Return the time that all others together waited for this rank."""
        return sum(self.cost_ns.values())

    @property
    def stall_ns(self) -> int:
        """Return the time in which its accelerator was idle for want of its own batch."""
        return stall_in(self.ledger_ns)

    def explained(self, finding: Finding) -> Finding:
        """Return the finding with the mechanism that this rank's record shows, if it has that cause."""
        own = self._own(finding)
        return finding if own is None else finding._replace(shown=own.shown)

    def fix(self, finding: Finding) -> str:
        """Return the fix that this rank's own report names, if its cause is that of the job."""
        own = self._own(finding)
        if own is not None:
            return own.fix
        return fixes.NONE.word if self.facts is None else choose(finding, self.facts)

    def _own(self, finding: Finding) -> Verdict | None:
        """Return the judgement of this rank alone, if it has the cause of `finding`."""
        own = self.verdict
        same = own is not None and (own.cause, own.detail) == (finding.cause, finding.detail)
        return own if same else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "rank": self.rank,
            "node": self.node,
            "host": self.host,
            "local_rank": self.local_rank,
            "run": str(self.directory),
            "status": self.status,
            "steps": self.steps,
            "wall_ns": self.wall_ns,
            "ledger_ns": self.ledger_ns,
            "stall_share": share(self.stall_ns, self.wall_ns),
            "waited_ns": self.waited_ns,
            "caused_ns": self.caused_ns,
            "caused_by_ns": dict(self.cost_ns),
            "throughput_samples_per_s": self.samples / self.wall_ns * units.NS_PER_S
            if self.wall_ns
            else None,
        }


@dataclass(frozen=True, slots=True)
class NodeRow:
    """The ranks of one node."""

    host: str
    ranks: list[RankRow]

    @property
    def waited_ns(self) -> int:
        """Return the time that its ranks together waited for other ranks."""
        return sum(row.waited_ns for row in self.ranks)

    @property
    def waited_share(self) -> float | None:
        """Return `waited_ns` as a share of its ranks' time."""
        return share(self.waited_ns, sum(row.wall_ns for row in self.ranks))

    @property
    def caused_ns(self) -> int:
        """Return the time that all other ranks waited for its ranks."""
        return sum(row.caused_ns for row in self.ranks)


@dataclass(frozen=True)
class JobVerdict:
    """Verdict on a job of several ranks."""

    rank: int | None
    """Rank that the others waited for; None if no single one stands out."""
    cause: str
    """A word of the vocabulary: why that rank was late, or what all ranks stalled for."""
    detail: str | None
    fix: str
    """A word of the vocabulary: what bears on that cause, for that rank or for all."""
    band: BandWord | None
    lost_share: float | None
    """Share of all ranks' time lost to stalls of their own and to waiting for others."""
    wait_share: float | None
    """Share of the other ranks' time spent waiting for `rank`; without one, for any."""
    statement: Statement
    shard: str | None = None
    """Shard that most of the waiting for `rank` was for, of several; None if none stands out."""

    @property
    def sentence(self) -> str:
        """Return the verdict in words: its headline and the evidence."""
        return self.statement.text

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "statement"}
        return {**figures, "sentence": self.sentence, **asdict(self.statement)}


@dataclass(frozen=True)
class JobAnalysis:
    """Answer for all ranks of one job together."""

    ranks: list[RankRow]
    world_size: int
    clocks: dict[str, ClockFit]
    spread_ns: float | None
    recorded: bool
    """True if the meetings were recorded, and not inferred."""
    emulated: list[str]
    doubts: list[Doubt]
    shards: list[ShardRow] | None = None
    """Shards that cost the others most, first; None if the ranks read from none, or none is known."""
    unobserved: Unobserved | None = None
    """Ranks that were not chosen to be observed; None if all were."""

    @property
    def status(self) -> str:
        """Return `complete` if every rank that was chosen is there and complete; else `partial`."""
        expected = self.world_size - (self.unobserved.ranks if self.unobserved else 0)
        whole = len(self.ranks) == expected and all(row.status == "complete" for row in self.ranks)
        return "complete" if whole else "partial"

    @property
    def verdict(self) -> JobVerdict:
        """Return the verdict on the job as a whole; it says what was not observed, and whether it is too
        short."""
        verdict = judge(self.ranks, self.shards or [])
        said = verdict.statement
        if self.unobserved is not None:
            said = replace(said, evidence=f"{said.evidence} {self.unobserved.sentence}".strip())
        if short := next((doubt for doubt in self.doubts if doubt.name in TOO_LITTLE), None):
            said = replace(said, headline=f"Too early to say: {short.problem}. So far: {said.headline}")
        return replace(verdict, statement=said)

    @property
    def choice(self) -> RecordedChoice:
        """Return the part of the answer that is stored beside the job's parts."""
        verdict = self.verdict
        wall_ns = sum(row.wall_ns for row in self.ranks)
        return RecordedChoice(
            verdict.cause,
            verdict.detail,
            verdict.fix,
            verdict.lost_share,
            self.throughput,
            wall_ns=wall_ns,
            fix_basis="ledger",
        )

    def nodes(self) -> list[NodeRow]:
        """Group the ranks by node."""
        by_host: dict[str, list[RankRow]] = {}
        for row in self.ranks:
            by_host.setdefault(row.host or "unknown", []).append(row)
        return [NodeRow(host, rows) for host, rows in by_host.items()]

    @property
    def stall_share(self) -> float | None:
        """Return the share of the measured ranks' time that they stalled for batches of their own."""
        rows = _measured(self.ranks)
        return share(sum(row.stall_ns for row in rows), sum(row.wall_ns for row in rows))

    def as_dict(self) -> dict[str, Any]:
        """Return the dictionary of `pipeprof merge --json`: plain values, None if not known."""
        verdict = self.verdict
        return {
            "schema": JSON_SCHEMA,
            "status": self.status,
            "world_size": self.world_size,
            "verdict": {
                **verdict.as_dict(),
                "doubts": [
                    {"name": doubt.name, "problem": doubt.problem, "remedy": doubt.remedy}
                    for doubt in self.doubts
                ],
            },
            "clocks": [clock._asdict() for clock in self.clocks.values()],
            "meetings": {"recorded": self.recorded, "ends_apart_ns": self.spread_ns},
            "ranks": [row.as_dict() for row in self.ranks],
            "nodes": {
                node.host: {
                    "ranks": [row.rank for row in node.ranks],
                    "waited_ns": node.waited_ns,
                    "caused_ns": node.caused_ns,
                }
                for node in self.nodes()
            },
            "shards": None if self.shards is None else [row.as_dict() for row in self.shards],
            "throughput_samples_per_s": self.throughput,
            "emulated": self.emulated,
            "unobserved": None if self.unobserved is None else self.unobserved.as_dict(),
        }

    @property
    def throughput(self) -> float | None:
        """Return the samples a second of all ranks together."""
        rates = [row.samples / row.wall_ns * units.NS_PER_S for row in self.ranks if row.wall_ns]
        return sum(rates) if rates else None


def share(part_ns: int, whole_ns: int) -> float | None:
    """Return a part as a share of some time; None of none."""
    return part_ns / whole_ns if whole_ns else None


def _measured(ranks: Sequence[RankRow]) -> list[RankRow]:
    """Return the ranks that recorded a measured step."""
    return [row for row in ranks if row.wall_ns and row.facts is not None]


def judge(ranks: list[RankRow], shards: Sequence[ShardRow] = ()) -> JobVerdict:
    """Name whom the others waited for and why; or what all of them stalled for, if that cost more."""
    measured = _measured(ranks)
    wall = sum(row.wall_ns for row in measured)
    if not measured:
        nothing = Statement("No rank recorded a measured step.")
        return JobVerdict(None, causes.INCONCLUSIVE.word, None, fixes.NONE.word, None, None, None, nothing)
    waited = sum(row.caused_ns for row in measured)
    worst = max(measured, key=lambda row: row.caused_ns)
    others_ns = wall - worst.wall_ns
    stalled = sum(row.stall_ns for row in measured)
    lost = (stalled + waited) / wall
    single = worst.caused_ns >= MOSTLY * waited
    others_stall = stalled - worst.stall_ns if single else stalled
    if waited < HEALTHY * wall or waited <= others_stall:
        return _common_stall(measured, wall, lost)
    if not single:
        return _rotating_lateness(measured, waited / wall, lost)
    waiting = worst.caused_ns / others_ns if others_ns else 0.0
    owner = max(worst.cost_ns, key=lambda name: worst.cost_ns[name])
    finding, late, evidence = _why(owner, worst)
    shard = _culprit([row for row in shards if row.rank == worst.rank])
    said = Statement(
        f"The other ranks spent {units.percent(waiting)} of the time waiting for rank {worst.rank}"
        f"{_where(worst)}, which was late because {late}.",
        f"{evidence} {_while_reading(shard)}".strip(),
    )
    fix = worst.fix(finding)
    name = shard.shard if shard else None
    return JobVerdict(
        worst.rank, finding.cause, finding.detail, fix, band_of(lost).word, lost, waiting, said, name
    )


def _culprit(shards: list[ShardRow]) -> ShardRow | None:
    """Return the shard of a rank that carries most of its cost, and clearly more than its share of steps."""
    for row in shards:
        cost = row.caused_share or 0.0
        if cost > MOSTLY and cost - row.steps_share >= CLEARLY_MORE:
            return row
    return None


def _while_reading(shard: ShardRow | None) -> str:
    if shard is None or shard.caused_share is None:
        return ""
    return (
        f"{units.percent(shard.caused_share)} of the waiting was for batches read from {shard.shard}, "
        f"which made {units.percent(shard.steps_share)} of its steps."
    )


def _where(row: RankRow) -> str:
    return f" (on {row.host})" if row.host else ""


def _why(owner: str, row: RankRow) -> tuple[Finding, str, str]:
    """Return the cause, the words that complete "late because", and the evidence."""
    assert row.facts is not None
    if owner == owners.ACCELERATOR.name:
        return Finding(causes.ACCELERATOR.word), "its steps took longer to compute", ""
    if owner == owners.UNKNOWN.name:
        said = _by_operator(row.facts)
        return Finding(causes.INCONCLUSIVE.word), "of something that no record explains", said
    finding = row.explained(cause_of_owner(owner, row.facts))
    why = _reason(finding, row)
    return finding, f"it waited for {why.waiting_for}", why.evidence


def _reason(finding: Finding, row: RankRow) -> Reason:
    fix, evidence = fixes.NONE.word, finding.evidence
    verdict = Verdict(
        None, finding.cause, fix, None, None, finding.detail, evidence=evidence, shown=finding.shown
    )
    return reason(verdict, row.facts)


def _rotating_lateness(ranks: list[RankRow], waited: float, lost: float) -> JobVerdict:
    """Judge a job in which many ranks took turns holding up the others."""
    costs: dict[str, int] = {}
    for row in ranks:
        for owner, ns in row.cost_ns.items():
            costs[owner] = costs.get(owner, 0) + ns
    owner = max(costs, key=lambda name: costs[name])
    example = max(ranks, key=lambda row: row.cost_ns.get(owner, 0))
    finding, late, evidence = _why(owner, example)
    said = Statement(
        f"The ranks spent {units.percent(waited)} of the time waiting for each other, and no single rank "
        f"stands out: the late one was late mostly because {late}.",
        evidence,
    )
    fix = example.fix(finding)
    return JobVerdict(None, finding.cause, finding.detail, fix, band_of(lost).word, lost, waited, said)


def _by_operator(facts: Facts) -> str:
    """Return what a rank's source says of its slowest operator; empty if it says nothing."""
    slowest = facts.slowest_operator
    return "" if slowest is None else f"By its own statistics {operators.sentence(slowest)}."


def _common_stall(ranks: list[RankRow], wall: int, lost: float) -> JobVerdict:
    """Judge a job in which no rank held up the others for long: name what all stalled for, if anything."""
    total: dict[str, int] = {}
    for row in ranks:
        for owner, ns in row.ledger_ns.items():
            name = owners.COLLECTIVE.name if owners.record_of(owner) is owners.RANK else owner
            total[name] = total.get(name, 0) + ns
    middle = sorted(ranks, key=lambda row: row.stall_ns / row.wall_ns)[len(ranks) // 2]
    assert middle.facts is not None
    finding = middle.explained(find_cause(Ledger(Window(0, wall), total), middle.facts))
    stall = sum(row.stall_ns for row in ranks) / wall
    if finding.cause == causes.ACCELERATOR.word:
        waited = units.percent(stall)
        said = Statement(
            f"The accelerators were kept busy: they spent {waited} of the time waiting for data."
        )
    elif finding.cause == causes.INCONCLUSIVE.word:
        said = Statement(
            "The ranks do not show what they waited for: no owner of the time was observed.",
            _by_operator(middle.facts),
        )
    else:
        share = stall if owners.is_stall(finding.cause) else total.get(finding.cause, 0) / wall
        why = _reason(finding, middle)
        said = Statement(
            f"No rank stands out: all of them {spent_waiting(share, finding.share, why.waiting_for)}.",
            why.evidence,
        )
    fix = middle.fix(finding)
    return JobVerdict(None, finding.cause, finding.detail, fix, band_of(lost).word, lost, None, said)
