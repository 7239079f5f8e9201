"""A job of several ranks, answered: whom the others waited for, why it was late, one ledger a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeprof.analyse.attribution import NOT_STALL, Ledger
from pipeprof.analyse.causes import HEALTHY, MOSTLY, Finding, find_cause, told_apart
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.fixes import choose_fix
from pipeprof.analyse.meetings import Clock
from pipeprof.analyse.sentence import reason
from pipeprof.analyse.shards import ShardRow
from pipeprof.analyse.verdict import Band, Doubt, Verdict, band_of
from pipeprof.pipeline import Window

JSON_SCHEMA: Final = 1
OTHERS: Final = "rank:others"
"""Owner of waiting for ranks that each held this one up only a little."""
CLEARLY_MORE: Final = 0.25
"""Share of a late rank's cost that one shard must carry beyond its share of the steps, to be named."""


@dataclass(frozen=True)
class RankRow:
    """One rank. Its ledger sums to its wall time, with `rank:<r>:<owner>` for what others cost it."""

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
    waited_ns: int = 0
    """In meetings, for others to come."""
    cost_ns: Mapping[str, int] = field(default_factory=dict)
    """What all others together waited for this rank, by the owner that made it late."""

    @property
    def caused_ns(self) -> int:
        """What all others together waited for this rank."""
        return sum(self.cost_ns.values())

    @property
    def stall_ns(self) -> int:
        """Time in which its accelerator wanted for a batch of its own."""
        own = {owner: ns for owner, ns in self.ledger_ns.items() if not owner.startswith("rank:")}
        return sum(ns for owner, ns in own.items() if owner not in NOT_STALL)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
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
            "throughput_samples_per_s": self.samples / self.wall_ns * 1e9 if self.wall_ns else None,
        }


@dataclass(frozen=True)
class JobVerdict:
    """What a job of several ranks says."""

    rank: int | None
    """The one that the others waited for; None where no single one stands out."""
    cause: str
    """A word of DESIGN §5: why that rank was late, or what all ranks stalled for."""
    detail: str | None
    fix: str
    """A word of DESIGN §5: what bears on that cause, for that rank or for all."""
    band: Band | None
    lost_share: float | None
    """Of all ranks' time: stalls of their own, and waiting for others."""
    wait_share: float | None
    """Of the other ranks' time, the part spent waiting for `rank`; without one, for any."""
    sentence: str
    shard: str | None = None
    """The one of several that most of the waiting for `rank` was for; None where none stands out."""


@dataclass(frozen=True)
class Merged:
    """All ranks of one job together."""

    ranks: list[RankRow]
    world_size: int
    clocks: dict[str, Clock]
    spread_ns: float | None
    recorded: bool
    """The meetings were recorded, and not inferred."""
    emulated: list[str]
    doubts: list[Doubt]
    shards: list[ShardRow] | None = None
    """Those that cost the others most, first; None where the ranks read from none, or none is known."""

    @property
    def status(self) -> str:
        """`complete` where every rank is there and complete; else `partial`."""
        whole = len(self.ranks) == self.world_size and all(row.status == "complete" for row in self.ranks)
        return "complete" if whole else "partial"

    @property
    def verdict(self) -> JobVerdict:
        """One verdict for the job."""
        return judge(self.ranks, self.shards or [])

    def nodes(self) -> dict[str, list[RankRow]]:
        """The ranks by node."""
        found: dict[str, list[RankRow]] = {}
        for row in self.ranks:
            found.setdefault(f"{row.host or 'unknown'}", []).append(row)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The dictionary of `pipeprof merge --json`: plain values, None where not known."""
        verdict = self.verdict
        return {
            "schema": JSON_SCHEMA,
            "status": self.status,
            "world_size": self.world_size,
            "verdict": {
                **{name: getattr(verdict, name) for name in verdict.__dataclass_fields__},
                "doubts": [
                    {"name": one.name, "problem": one.problem, "remedy": one.remedy} for one in self.doubts
                ],
            },
            "clocks": [one._asdict() for one in self.clocks.values()],
            "meetings": {"recorded": self.recorded, "ends_apart_ns": self.spread_ns},
            "ranks": [row.as_dict() for row in self.ranks],
            "nodes": {
                host: {
                    "ranks": [row.rank for row in rows],
                    "waited_ns": sum(row.waited_ns for row in rows),
                    "caused_ns": sum(row.caused_ns for row in rows),
                }
                for host, rows in self.nodes().items()
            },
            "shards": None if self.shards is None else [row.as_dict() for row in self.shards],
            "throughput_samples_per_s": self.throughput,
            "emulated": self.emulated,
        }

    @property
    def throughput(self) -> float | None:
        """Samples a second of all ranks together."""
        rates = [row.samples / row.wall_ns * 1e9 for row in self.ranks if row.wall_ns]
        return sum(rates) if rates else None


def share(part_ns: int, whole_ns: int) -> float | None:
    """A part of some time; None of none."""
    return part_ns / whole_ns if whole_ns else None


def judge(ranks: list[RankRow], shards: Sequence[ShardRow] = ()) -> JobVerdict:
    """Whom the others waited for and why; or what all of them stalled for, where that cost more."""
    measured = [row for row in ranks if row.wall_ns and row.facts is not None]
    wall = sum(row.wall_ns for row in measured)
    if not measured:
        nothing = "No rank recorded a measured step."
        return JobVerdict(None, "inconclusive", None, "none", None, None, None, nothing)
    waited = sum(row.caused_ns for row in measured)
    worst = max(measured, key=lambda row: row.caused_ns)
    others_ns = wall - worst.wall_ns
    stalled = sum(row.stall_ns for row in measured)
    lost = (stalled + waited) / wall
    single = worst.caused_ns >= MOSTLY * waited
    others_stall = stalled - worst.stall_ns if single else stalled
    if waited < HEALTHY * wall or waited <= others_stall:
        return _alike(measured, wall, lost)
    if not single:
        return _in_turn(measured, waited / wall, lost)
    waiting = worst.caused_ns / others_ns if others_ns else 0.0
    owner = max(worst.cost_ns, key=lambda name: worst.cost_ns[name])
    finding, why = _why(owner, worst)
    shard = _culprit([row for row in shards if row.rank == worst.rank])
    text = (
        f"The other ranks waited {100 * waiting:.0f} % of the time for rank {worst.rank}{_where(worst)}, "
        f"and it was late for {why}{_while_reading(shard)}."
    )
    fix = _fix(finding, worst)
    name = shard.shard if shard else None
    return JobVerdict(
        worst.rank, finding.cause, finding.detail, fix, band_of(lost), lost, waiting, text, name
    )


def _culprit(shards: list[ShardRow]) -> ShardRow | None:
    """The shard of one rank that carries most of its cost, and clearly more than its share of the steps."""
    for row in shards:
        cost = row.caused_share or 0.0
        if cost > MOSTLY and cost - row.steps_share >= CLEARLY_MORE:
            return row
    return None


def _while_reading(shard: ShardRow | None) -> str:
    if shard is None or shard.caused_share is None:
        return ""
    return (
        f"; {100 * shard.caused_share:.0f} % of that while it read {shard.shard}, which made "
        f"{100 * shard.steps_share:.0f} % of its steps"
    )


def _fix(finding: Finding, row: RankRow) -> str:
    assert row.facts is not None
    return choose_fix(finding, row.facts)


def _where(row: RankRow) -> str:
    return f" (on {row.host})" if row.host else ""


def _why(owner: str, row: RankRow) -> tuple[Finding, str]:
    """The cause's word and its words."""
    assert row.facts is not None
    if owner == "accelerator":
        return Finding(owner), "its computing: its steps took longer than the others'"
    if owner == "unknown":
        return Finding("inconclusive"), "a reason that no record explains"
    finding = told_apart(owner, row.facts)
    verdict = Verdict(None, finding.cause, "none", None, None, finding.detail, evidence=finding.evidence)
    return finding, reason(verdict, row.facts)


def _in_turn(ranks: list[RankRow], waited: float, lost: float) -> JobVerdict:
    """Many ranks held the others up, one after the other."""
    costs: dict[str, int] = {}
    for row in ranks:
        for owner, ns in row.cost_ns.items():
            costs[owner] = costs.get(owner, 0) + ns
    owner = max(costs, key=lambda name: costs[name])
    example = max(ranks, key=lambda row: row.cost_ns.get(owner, 0))
    finding, why = _why(owner, example)
    text = (
        f"The ranks waited {100 * waited:.0f} % of the time for each other, no single one of them late: "
        f"the late one was so mostly for {why}."
    )
    fix = _fix(finding, example)
    return JobVerdict(None, finding.cause, finding.detail, fix, band_of(lost), lost, waited, text)


def _alike(ranks: list[RankRow], wall: int, lost: float) -> JobVerdict:
    """No rank held the others up for long: what all of them stalled for, if they did."""
    total: dict[str, int] = {}
    for row in ranks:
        for owner, ns in row.ledger_ns.items():
            name = "collective" if owner.startswith("rank:") else owner
            total[name] = total.get(name, 0) + ns
    middle = sorted(ranks, key=lambda row: row.stall_ns / row.wall_ns)[len(ranks) // 2]
    assert middle.facts is not None
    finding = find_cause(Ledger(Window(0, wall), total), middle.facts)
    stall = sum(row.stall_ns for row in ranks) / wall
    if finding.cause == "accelerator":
        text = f"The accelerators were kept busy: they waited {100 * stall:.0f} % of the time for data."
    elif finding.cause == "inconclusive":
        text = "The ranks cannot say what they waited for: no owner of the time was observed."
    else:
        verdict = Verdict(None, finding.cause, "none", stall, None, finding.detail, evidence=finding.evidence)
        named = total.get(finding.cause, 0) / wall if finding.cause in NOT_STALL else stall
        why = reason(verdict, middle.facts)
        text = f"All ranks alike: they waited {100 * named:.0f} % of the time, for {why}."
    fix = _fix(finding, middle)
    return JobVerdict(None, finding.cause, finding.detail, fix, band_of(lost), lost, None, text)
