"""Remote storage: the parts of its reads become owners, details of the cause, and the fixes that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.causes import cause_of_owner
from pipeprof.analyse.choice import choose
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.ledger.making import Counters, Stage, Stages, making_of
from pipeprof.analyse.ledger.straggler import Lateness, charge_stragglers
from pipeprof.analyse.sentence import state
from pipeprof.analyse.verdict import Verdict
from tests.factory import make_run

MS = 1_000_000


def column(*values: float) -> Any:
    return np.array(values, np.float32)


def remote_stages(*walls: float) -> Stages:
    """`read` of each batch, half of it throttled and a quarter waiting for first bytes."""
    wall = column(*walls)
    return Stages({"read": Stage(wall)}, parts={"throttled": Stage(wall / 2), "first-byte": Stage(wall / 4)})


def mixes(stages: Stages, wall: Any) -> tuple[tuple[str, ...], Any]:
    unseen = np.full(len(wall), np.nan, np.float32)
    counters = Counters(wall, unseen, unseen, np.zeros(len(wall), bool))
    making = making_of(stages, counters, network=True)
    return making.owners, making.shares()


def test_the_parts_of_a_read_are_owners_and_sum_to_it() -> None:
    owners, shares = mixes(remote_stages(80), column(80))
    found = {name: float(share) for name, share in zip(owners, shares[0], strict=True) if share}
    assert found == pytest.approx(
        {"storage:throttled": 0.5, "storage:first-byte": 0.25, "storage:network": 0.25}
    )


def test_a_batch_that_is_late_for_refusals_is_no_straggler() -> None:
    walls = column(10, 10, 10, 200)
    stages = Stages({"read": Stage(walls)}, parts={"throttled": Stage(column(0, 0, 0, 190))})
    owners, shares = mixes(stages, walls)
    late = Lateness(np.array([0, 0, 0, 190]), np.zeros(4, np.int64))
    charge_stragglers(shares, late, walls)
    found = dict(zip(owners, shares[3].tolist(), strict=True))
    assert found["straggler"] == pytest.approx(0, abs=1e-6)
    assert found["storage:throttled"] == pytest.approx(0.95)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    found = load(make_run(tmp_path / "run")).facts
    assert found is not None
    requests = {"client": (50 * MS, 100), "first-byte": (600 * MS, 100), "throttled": (0, 0)}
    seen = {"read_wall_ns": 1000 * MS, "wall_ns": 500 * MS, "reads": 100, "read_bytes": 2_000_000}
    return replace(found, remote=True, requests=requests, tier="network", cache=None, **seen)


@pytest.mark.parametrize(
    ("split", "detail", "fix", "said"),
    [
        ({"first-byte": 60, "network": 30}, "latency", "more-workers", "waits 6.00 ms for its first byte"),
        ({"first-byte": 30, "network": 60}, "bandwidth", "ram", "4.00 MB/s to 2 reads at once"),
        ({"first-byte": 30, "network": 20, "throttled": 50}, "throttled", "shards", "(503 or 429)"),
        ({"first-byte": 30, "retry": 50}, "retries", "ram", "failed"),
        ({"first-byte": 30, "client": 50}, "client", "shards", "bring 20.0 KB each"),
    ],
)
def test_the_largest_part_is_the_detail(
    facts: Facts, split: dict[str, int], detail: str, fix: str, said: str
) -> None:
    facts = replace(facts, data_bytes=1000, memory_bytes=10**9)
    finding = cause_of_owner("storage", facts, split)
    assert (finding.cause, finding.detail) == ("storage-network", detail)
    assert choose(finding, facts) == fix
    verdict = Verdict("highly", finding.cause, fix, 0.5, None, detail, evidence=finding.evidence)
    assert said in state(verdict, facts).evidence


def test_without_a_critical_path_the_reads_themselves_are_split(facts: Facts) -> None:
    assert cause_of_owner("storage", facts).detail == "latency"


def test_more_workers_are_not_advised_against_refusals_whatever_is_predicted(facts: Facts) -> None:
    finding = cause_of_owner("storage", facts, {"throttled": 9})
    assert choose(finding, facts, {"more-workers": 5.0}) == "shards"


def test_where_no_request_was_seen_there_is_no_detail(facts: Facts) -> None:
    finding = cause_of_owner("storage", replace(facts, requests={}), {"network": 9})
    assert (finding.cause, finding.detail) == ("storage-network", None)
