"""`pipeprof run` under torchrun: every rank measures, and the first reports for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.run import directories
from pipeprof.errors import PipeprofError
from pipeprof.scenario import Scenario

if TYPE_CHECKING:
    from pipeprof.measure.peers import Peers
    from pipeprof.measure.ranks import Rank


def run_together(
    rank: Rank, scenarios: list[Scenario], file: Path, out: Path | None, page: bool, as_json: bool
) -> int:
    """Measure each scenario with all ranks, rank 0 reporting after each; returns this rank's exit code."""
    from pipeprof.measure.peers import Peers
    from pipeprof.measure.ranks import job_directory

    code = 0
    with Peers(rank) as peers:
        for scenario, directory in zip(scenarios, directories(scenarios, file, out), strict=True):
            code = _measure(rank, peers, scenario, directory, file) or code
            together = _wait(peers)
            if rank.rank == 0:
                _report(job_directory(directory), page, as_json)
            # A rank that ends with an error ends the job, so none does before the report is written.
            if not (together and _wait(peers)) or code == INTERRUPTED:
                break
    return code


INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C has ended."""


def _measure(rank: Rank, peers: Peers, scenario: Scenario, directory: Path, file: Path) -> int:
    from pipeprof import trace
    from pipeprof.measure.live import shown
    from pipeprof.measure.run import run

    written = {"path": str(file), "text": file.read_text(encoding="utf-8-sig")}
    try:
        part = run(scenario, directory, written=written, display=None if rank.rank else shown, peers=peers)
    except PipeprofError as error:
        click.echo(f"pipeprof: rank {rank.rank}: {error}", err=True)
        return error.exit_code
    return INTERRUPTED if trace.load(part).status == "interrupted" else 0


def _wait(peers: Peers) -> bool:
    """Whether all ranks have come to this point; False where one is gone."""
    try:
        peers.gather(None)
    except PipeprofError:
        return False
    return True


def _report(directory: Path, page: bool, as_json: bool) -> None:
    """What all parts say together, in the terminal and as a page; a job that cannot be read says why."""
    from pipeprof.analyse.merge import merge
    from pipeprof.cli.merge import show, write_page

    try:
        merged = merge([directory])
        if as_json:
            click.echo(json.dumps(merged.as_dict(), indent=2))
        else:
            show(merged, write_page(merged, directory / "report.html") if page else None)
    except PipeprofError as error:
        click.echo(f"pipeprof: {error}", err=True)
