"""`pipeprof run` under torchrun: every rank measures, and the first reports for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeprof.cli.say import say
from pipeprof.errors import SIGNALLED, PipeprofError, exit_code_of
from pipeprof.record.meta import ScenarioMeta
from pipeprof.record.schema import REPORT_HTML
from pipeprof.scenario import Scenario

if TYPE_CHECKING:
    from pipeprof.measure.bench.rank_group import Peers
    from pipeprof.measure.session.job import Rank


def run_together(
    rank: Rank,
    runs: list[tuple[Scenario, Path]],
    file: Path,
    page: bool,
    as_json: bool,
    kernels: int = 0,
    quiet: bool = False,
) -> int:
    """Measure each of `runs` with all ranks, rank 0 reporting after each; return this rank's exit code."""
    from pipeprof.measure.bench.rank_group import Peers
    from pipeprof.measure.session.job import job_directory

    code = 0
    with Peers(rank) as peers:
        for scenario, directory in runs:
            code = _measure(rank, peers, scenario, directory, file, kernels, quiet) or code
            together = _wait(peers)
            if rank.rank == 0:
                _report(job_directory(directory), page, as_json, quiet)
            # A rank that ends with an error ends the job, so none does before the report is written.
            if not (together and _wait(peers)) or code > SIGNALLED:
                break
    return code


def _measure(
    rank: Rank, peers: Peers, scenario: Scenario, directory: Path, file: Path, kernels: int, quiet: bool
) -> int:
    from pipeprof.measure.bench.run import run
    from pipeprof.measure.bench.run_display import shown
    from pipeprof.record import reader

    written = ScenarioMeta(path=str(file), text=file.read_text(encoding="utf-8-sig"))
    try:
        display = None if rank.rank or quiet else shown
        part = run(scenario, directory, written=written, display=display, peers=peers, kernels=kernels)
    except PipeprofError as error:
        say(f"pipeprof: rank {rank.rank}: {error}", err=True)
        return error.exit_code
    recorded = reader.load(part)
    return exit_code_of(recorded.meta.signal) if recorded.status == "interrupted" else 0


def _wait(peers: Peers) -> bool:
    """Wait for all ranks; return False if a rank is gone."""
    try:
        peers.gather(None)
    except PipeprofError:
        return False
    return True


def _report(directory: Path, page: bool, as_json: bool, quiet: bool) -> None:
    """Report the job, in the terminal and as a page; say why if it cannot be read."""
    from pipeprof.analyse.job.merge import merge
    from pipeprof.cli.show.merge import show, write_page

    try:
        merged = merge([directory])
        if as_json:
            say(json.dumps(merged.as_dict(), indent=2))
            return
        written = write_page(merged, directory / REPORT_HTML) if page else None
        if not quiet:
            show(merged, written)
    except PipeprofError as error:
        say(f"pipeprof: {error}", err=True)
