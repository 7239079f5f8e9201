"""`pipeprof attach PID`: observe a job that is already running, and let it go."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from pipeprof import units
from pipeprof.cli.options import Directory, lines_option, no_report_option, quiet_option, verbose_option
from pipeprof.record.schema import REPORT_HTML


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
    from pipeprof.cli.runs import report_run, short
    from pipeprof.cli.show.merge import print_merged
    from pipeprof.measure.attach import attach, ranks
    from pipeprof.record.directories import new_directory

    if (pid is None) != torchrun:
        raise click.UsageError("give PID, or --torchrun and no PID")
    pid, all_ranks = (ranks.torchrun(), True) if pid is None else (pid, all_ranks)

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"pipeprof: {text}", err=True)

    def silent(pid: int) -> None:
        say(f"process {pid} did not answer in time: if it is a rank of this job, it is not observed")

    pids = ranks.ranks_of(pid, silent) if all_ranks else [pid]
    for each in pids:
        attach.check(each)
    directory = out or new_directory(attach.job_name(pids[0]))
    if seconds is None and steps is None:
        seconds = 30.0
    wanted = attach.Wanted(
        directory, seconds, steps, lines, telemetry_hz, hang_after or (5.0 if hang else None), path
    )

    def entered(pid: int, workers: int) -> None:
        say(f"in process {pid} and {workers} of its workers")

    def on_hang(text: str) -> None:
        click.echo(f"pipeprof: {text}", err=True)

    if all_ranks:
        observed = ranks.attach_all(pids, wanted, entered, on_hang)
        say(f"observed {len(observed)} ranks, and out of them again")
        print_merged((observed[0].directory.parent,), False, observed[0].directory.parent / REPORT_HTML)
        return
    done = attach.attach(pid, wanted, partial(entered, pid), on_hang)
    say(f"out of it again; the loop stood still for {units.duration(done.took_ns)} to let pipeprof in")
    if done.unseen_workers:
        say(f"{done.unseen_workers} workers could not be entered: they answered too late")
    if done.ended:
        say(f"process {pid} has ended meanwhile")
    seen = short(done.directory)
    if done.steps == 0 and not done.ended:
        say(f"no batch was taken from a DataLoader meanwhile; see {seen}")
        return
    report_run(seen, page=not no_report, quiet=quiet, verbose=verbose)
