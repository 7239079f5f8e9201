"""Fully sharded training, whose ranks meet in the forward pass too: recorded, and not met with once more."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pipeprof
from pipeprof.analyse.job.merge import merge
from pipeprof.measure.session.session import Session
from tests.forked import Program, verb
from tests.measure.bench.test_ranks_together import as_rank, free_port
from tests.scripts import under_fsdp

SCRIPT = str(Path(under_fsdp.__file__))
pytestmark = [pytest.mark.heavy, pytest.mark.parametrize("version", ["1", "2"])]


def job_of_two(main: Callable[[], Any], cwd: Path) -> list[int]:
    """Start two ranks; how many collectives each of them made."""
    port = free_port()
    started = [Program(as_rank(rank, 2, port, main), cwd) for rank in (0, 1)]
    done = [program.finished() for program in started]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    return [int(re.findall(r"collectives (\d+)", one.stdout)[0]) for one in done]


def plain(version: str) -> None:
    sys.argv = [SCRIPT, version]
    runpy.run_path(SCRIPT, run_name="__main__")


def wrapped(version: str) -> None:
    """As somebody has it who put our loader in the place of torch's."""
    with Session("job") as session:
        made = under_fsdp.train(version, partial(pipeprof.ProfiledDataLoader, session=session))
    print(f"collectives {made}")


@pytest.mark.parametrize("how", ["trace", "wrapper"])
def test_a_sharded_model_is_recorded_and_its_ranks_meet_no_more_often(
    how: str, version: str, tmp_path: Path
) -> None:
    alone = job_of_two(partial(plain, version), tmp_path)
    assert min(alone) >= 80, "at least twice a step"
    traced = verb("trace", "--out", "job", "--no-report", SCRIPT, version)
    assert job_of_two(traced if how == "trace" else partial(wrapped, version), tmp_path) == alone
    found = merge([tmp_path / "job"])
    assert found.status == "complete"
    assert [row.steps for row in found.ranks] == [40, 40]
    assert (found.verdict.rank, found.verdict.cause) == (1, "blocked")
    for row in found.ranks:
        assert sum(row.ledger_ns.values()) == row.wall_ns
