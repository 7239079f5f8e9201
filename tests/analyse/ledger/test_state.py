"""The state of a data set that travels with its batches: carrying it is a part of what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.ledger.attribution import Ledger, attribute
from pipeprof.record.reader import load as read
from pipeprof.vocabulary import owners
from tests.factory import MS, Plan, make_run, walk

pytestmark = pytest.mark.usefixtures("of_any_length")

WAY = 40 * MS
TAKING = 2 * MS
"""Of the state, before it is pickled."""
CARRIED = Plan(batches=60, stages={"collate": 5 * MS, owners.STATE: TAKING}, transfer=WAY, compute=MS)
SENT_BYTES = 800_000


def carried(state_bytes: int | None, every: int = 1, observed_every: int = 1) -> Plan:
    """Batches of which one in `every` carries a state, and the sizes of one in `observed_every` are known."""
    made = walk(CARRIED)
    seqs = range(CARRIED.batches)
    sizes = [SENT_BYTES if seq % observed_every == 0 else None for seq in seqs]
    states = [
        state_bytes if size and seq % every == 0 else None for seq, size in zip(seqs, sizes, strict=True)
    ]
    columns = {
        "pickled_ns": [at + TAKING for at in made.finish],
        "sent_ns": [at + TAKING + MS for at in made.finish],
        "sent_bytes": sizes,
        "state_bytes": states,
        "received_ns": made.available,
    }
    return replace(CARRIED, step_columns=columns)  # type: ignore[arg-type]


def ledger_of(directory: Path, plan: Plan) -> Ledger:
    found = attribute(read(make_run(directory, plan)))
    assert found is not None
    assert sum(found.whole.path_ns.values()) == found.whole.window.wall_ns
    return found.whole


def test_carrying_a_state_is_charged_to_the_state(tmp_path: Path) -> None:
    path = ledger_of(tmp_path / "run", carried(int(0.95 * SENT_BYTES))).path_ns
    handed = path[owners.STATE] + path[owners.TRANSFER.name]
    assert path[owners.TRANSFER.name] == pytest.approx(0.05 * handed, rel=0.4)
    verdict = load(tmp_path / "run").verdict
    assert (verdict.cause, verdict.fix) == (owners.STATE, "cheaper-work")


@pytest.mark.parametrize("state_bytes", [None, 60_000])
def test_batches_that_carry_no_state_or_a_small_one_travel_for_themselves(
    tmp_path: Path, state_bytes: int | None
) -> None:
    path = ledger_of(tmp_path / "run", carried(state_bytes)).path_ns
    assert path.get(owners.STATE, 0) <= 0.1 * path[owners.TRANSFER.name]
    assert load(tmp_path / "run").verdict.cause == "transfer"


def test_batches_whose_pickle_was_not_seen_are_taken_for_the_others(tmp_path: Path) -> None:
    whole, half = (
        ledger_of(tmp_path / str(every), carried(int(0.95 * SENT_BYTES), observed_every=every)).path_ns
        for every in (1, 2)
    )
    assert half == whole


def test_a_state_with_one_batch_in_ten_is_no_part_of_the_others(tmp_path: Path) -> None:
    path = ledger_of(tmp_path / "run", carried(int(0.95 * SENT_BYTES), every=10)).path_ns
    assert path[owners.TRANSFER.name] > 2 * path[owners.STATE] > 0
