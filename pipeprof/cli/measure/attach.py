"""`pipeprof attach PID`: observe a job that is already running, and let it go."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof import units
from pipeprof.cli.options import Directory, lines_option, no_report_option, quiet_option, verbose_option
from pipeprof.record.schema import REPORT_HTML

if TYPE_CHECKING:
    from pipeprof.measure.attach.attach import Attached, Wanted


@click.command()
@click.option("--out", type=Directory(), help="The run directory (default: a new one in runs/).")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="How long to observe (default: 30).")
@click.option("--steps", type=click.IntRange(min=1), help="Detach after this many complete steps.")
@no_report_option
@lines_option
@quiet_option
@verbose_option
@click.option("--telemetry-hz", type=float, default=0.0, help="Sample CPU, memory and disks at this rate.")
@click.option("--hang", is_flag=True, help="The loop hangs: say which worker holds the batch, and where.")
@click.option(
    "--hang-after",
    type=click.FloatRange(min=0.1),
    help="Report a hang when no batch has arrived for this many seconds (with --hang: 5).",
)
@click.option(
    "--all-ranks",
    is_flag=True,
    help="PID is a rank, or the launcher, of a job: observe all ranks on this node.",
)
@click.option("--torchrun", is_flag=True, help="Observe all ranks of this node's torchrun; takes no PID.")
@click.option(
    "--path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory that contains pipeprof, for a job whose Python does not have it installed.",
)
@click.argument("pid", type=int, required=False)
def command(
    out: Path | None,
    seconds: float | None,
    steps: int | None,
    no_report: bool,
    lines: bool,
    quiet: bool,
    verbose: bool,
    telemetry_hz: float,
    hang: bool,
    hang_after: float | None,
    all_ranks: bool,
    torchrun: bool,
    path: Path | None,
    pid: int | None,
) -> None:
    """Observe the training process PID and its loader's workers, report where their time goes, and detach.

    Nothing is restarted. For 30 s, or until Ctrl-C, the job runs with pipeprof's proxies in its loader; its
    batches stay the same. Batches in flight when observation begins or ends are not observed.
    """
    from pipeprof.measure.attach import attach, ranks
    from pipeprof.record.directories import new_directory

    if (pid is None) != torchrun:
        raise click.UsageError("give PID, or --torchrun and no PID")
    pid, all_ranks = (ranks.torchrun(), True) if pid is None else (pid, all_ranks)
    say = _Telling(quiet)
    pids = ranks.ranks_of(pid, say.silent) if all_ranks else [pid]
    for each in pids:
        attach.check(each)
    if seconds is None and steps is None:
        seconds = 30.0
    wanted = attach.Wanted(
        out or new_directory(attach.job_name(pids[0])),
        seconds,
        steps,
        lines,
        telemetry_hz,
        hang_after or (5.0 if hang else None),
        path,
    )
    if all_ranks:
        _attach_to_ranks(pids, wanted, say)
        return
    done = attach.attach(pid, wanted, partial(say.entered, pid), say.hang)
    _report(pid, done, say, page=not no_report, verbose=verbose)


class _Telling:
    """Tells on stderr how attaching goes."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, text: str) -> None:
        """Tell it, unless told to be quiet."""
        if not self.quiet:
            self.hang(text)

    def silent(self, pid: int) -> None:
        self(f"process {pid} did not answer in time: if it is a rank of this job, it is not observed")

    def entered(self, pid: int, workers: int) -> None:
        self(f"in process {pid} and {workers} of its workers")

    def hang(self, text: str) -> None:
        """Tell it in any case, as a hang is told."""
        click.echo(f"pipeprof: {text}", err=True)


def _attach_to_ranks(pids: list[int], wanted: Wanted, say: _Telling) -> None:
    """Observe all ranks of a job at once, and report on them together."""
    from pipeprof.cli.show.merge import print_merged
    from pipeprof.measure.attach import ranks

    observed = ranks.attach_all(pids, wanted, say.entered, say.hang)
    say(f"observed {len(observed)} ranks, and out of them again")
    job = observed[0].directory.parent
    print_merged((job,), False, job / REPORT_HTML)


def _report(pid: int, done: Attached, say: _Telling, page: bool, verbose: bool) -> None:
    """Tell how it went in one process, and report on what was observed."""
    from pipeprof.cli.runs import report_run, short

    say(f"out of it again; the loop stood still for {units.duration(done.took_ns)} to let pipeprof in")
    if done.unseen_workers:
        say(f"{done.unseen_workers} workers could not be entered: they answered too late")
    if done.ended:
        say(f"process {pid} has ended meanwhile")
    seen = short(done.directory)
    if done.steps == 0 and not done.ended:
        say(f"no batch was taken from a DataLoader meanwhile; see {seen}")
        return
    report_run(seen, page=page, quiet=say.quiet, verbose=verbose)
