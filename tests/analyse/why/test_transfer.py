"""The parts of a batch's way from its worker, of made runs: in the counts, in JSON, on page and terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.report.page.waiting import waits
from pipeprof.report.wording.view import transfer_line, view_of
from tests.factory import MS, Plan, make_run, walk

pytestmark = pytest.mark.usefixtures("of_any_length")

PICKLING, PIPE, RECEIVING = 3 * MS, MS, 46 * MS
SLOW = Plan(batches=60, stages={"collate": 5 * MS}, transfer=PICKLING + PIPE + RECEIVING, compute=MS)


def handed(plan: Plan, pin_memory: bool = False) -> Plan:
    """Add the times of the way: pickled at once, in the pipe, received."""
    made = walk(replace(plan, pin_memory=pin_memory))
    sent = [at + PICKLING for at in made.finish]
    began = [max(at - RECEIVING, ready) for at, ready in zip(made.take, sent, strict=True)]
    columns = {
        "pickled_ns": made.finish,
        "sent_ns": sent,
        "receive_start_ns": began,
        "received_ns": [at + RECEIVING for at in began],
        "sent_bytes": [2_000] * plan.batches,
    }
    return replace(plan, pin_memory=pin_memory, step_columns=columns)


def test_the_parts_of_a_slow_transfer_are_shown_with_their_bytes(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", handed(SLOW)))
    assert found.verdict.cause == "transfer"
    transfer = found.verdict.as_dict()["transfer"]
    assert list(transfer) == ["pickling_ns", "pipe_ns", "receiving_ns", "sent_bytes", "tensor_bytes"]
    assert (transfer["pickling_ns"], transfer["receiving_ns"]) == (PICKLING, RECEIVING)
    assert 0 < transfer["pipe_ns"] <= PIPE and transfer["sent_bytes"] == 2_000
    assert found.counts is not None
    (table,) = (table for table in waits(found, found.counts).tables if "by stage" in table.caption)
    pickling, pipe, receiving = (row for row in table.rows if ": " in row.cells[0])
    names = [row.cells[0].partition(": ")[2] for row in (pickling, pipe, receiving)]
    assert names == ["pickling", "pipe", "receiving"]
    assert pickling.cells[1] == "3.00 ms" and pickling.how == pipe.how == "2.00 KB"
    assert receiving.cells[1] == "46.0 ms" and receiving.how == "19.3 MB"
    line = transfer_line(view_of(found.run, found.verdict))
    assert "pickling 3.00 ms" in line and "(2.00 KB), receiving 46.0 ms (19.3 MB of tensors)" in line


def test_what_lies_in_the_pipe_until_the_loop_asks_is_no_transfer(tmp_path: Path) -> None:
    plan = handed(replace(SLOW, transfer=PICKLING, compute=90 * MS))
    transfer = load(make_run(tmp_path / "run", plan)).verdict.as_dict()["transfer"]
    assert transfer["pipe_ns"] < MS


def test_a_way_that_was_not_observed_is_null(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", SLOW))
    assert found.verdict.cause == "transfer" and found.verdict.as_dict()["transfer"] is None
    assert transfer_line(view_of(found.run, found.verdict)) == ""
    partly = replace(SLOW, step_columns={"pickled_ns": walk(SLOW).finish, "sent_ns": walk(SLOW).available})
    transfer = load(make_run(tmp_path / "partly", partly)).verdict.as_dict()["transfer"]
    assert transfer["pickling_ns"] == pytest.approx(50 * MS)
    assert transfer["receiving_ns"] is None and transfer["sent_bytes"] is None
