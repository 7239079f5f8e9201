"""`pipeprof trace train.py ARGS…`: run a training script with every DataLoader observed."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.options import Destination, kernels_option, name_option, quiet_option, verbose_option
from pipeprof.cli.runs import report_run, short, tell_comparison
from pipeprof.cli.say import say
from pipeprof.errors import MeasureError, PipeprofError

if TYPE_CHECKING:
    from pipeprof.measure.session.processes.program import Gathered
    from pipeprof.measure.session.script import Traced


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--out",
    type=Destination(),
    help="The run directory, or a URL such as s3://bucket/job; by default a new one in runs/.",
)
@name_option
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is a module, as with python -m.")
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--lines/--no-lines", default=True, help="Sample which lines the time goes to; on by default.")
@click.option(
    "--every-batch",
    is_flag=True,
    help="Look at all batches of a long run; by default at 1 of 8 of those that looking makes 1% slower.",
)
@quiet_option
@verbose_option
@click.option(
    "--telemetry-hz",
    type=float,
    default=0.0,
    help="Look at CPU, memory, disks and GPUs so often a second, as `run` does 10 times; by default never.",
)
@click.option(
    "--files/--no-files", default=True, help="Keep the names of some data files, for a probe; on by default."
)
@click.option(
    "--probe-storage",
    is_flag=True,
    help="Then read some data files for up to 5 s: what does their storage give to 1 to 16 readers?",
)
@click.option(
    "--probe-scaling",
    is_flag=True,
    help="Then make batches in 1, 2 and 4 processes for about 3 s: how does their cost grow with workers?",
)
@click.option(
    "--set",
    "settings",
    metavar="LOADER.ARGUMENT=VALUE",
    multiple=True,
    help="Make the script's DataLoaders with another argument, such as loader.num_workers=8; "
    "val.num_workers=8 changes the loader of that name alone. Also: prefetch_factor, pin_memory, "
    "persistent_workers, in_order, multiprocessing_context, worker_threads. May stand several times.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="End the script's loops after so many batches, over all loaders. What comes after the loop still "
    "runs; each further pass over a loader, as in the next epoch, gives one batch.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End the script's loops so long after it first asked for a batch.",
)
@click.option(
    "--then-exit",
    is_flag=True,
    help="End the script there too, by SystemExit at its loader: for scripts without an end of their own.",
)
@click.option(
    "--try",
    "tries",
    metavar="FIX",
    multiple=True,
    help="Try a fix that is no argument of a loader, and take it back at the end: one-thread, gc-freeze, "
    "affinity, file-system-sharing, cached, which keeps made samples in memory for the passes after the "
    "first, or ram=DIR, which reads DIR's files into the page cache where they fit (copies to /dev/shm "
    "cannot be tried without an edit). May stand several times.",
)
@click.option(
    "--warmup-steps", type=click.IntRange(min=0), default=0, help="Do not count so many first steps."
)
@click.option(
    "--hang-after",
    type=click.FloatRange(min=0.1),
    help="When no batch has come for so many seconds, say which worker holds it, and where; 60 is usual.",
)
@click.option(
    "--ranks",
    metavar="0,8,16",
    help="Of a job of several ranks, observe these alone; others run untouched.",
)
@click.option("--every", type=click.IntRange(min=1), help="Observe rank 0 and each that many after it.")
@kernels_option
@click.option("--no-command", is_flag=True, help="Do not keep the command line in the run.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context,
    out: Path | None,
    run_name: str | None,
    as_module: bool,
    no_report: bool,
    lines: bool,
    every_batch: bool,
    quiet: bool,
    verbose: bool,
    telemetry_hz: float,
    files: bool,
    probe_storage: bool,
    probe_scaling: bool,
    settings: tuple[str, ...],
    steps: int | None,
    seconds: float | None,
    then_exit: bool,
    tries: tuple[str, ...],
    warmup_steps: int,
    hang_after: float | None,
    ranks: str | None,
    every: int | None,
    kernels: int,
    no_command: bool,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run SCRIPT unchanged, with its ARGUMENTS, and say on standard error where its DataLoaders' time went.

    The run is written whatever the script ends with, and its exit code is kept; SIGTERM and SIGHUP too, where
    the script does not handle them, end it with a whole record and the verdict. The processes that it starts
    are observed too, each in a part of the run's directory: ranks together as a job. Under torchrun each rank
    writes its own part and none reports: `pipeprof report` shows all parts together. So do the ranks of srun,
    Open MPI, MPICH, Kubernetes' indexed jobs, Ray Train, Lightning and accelerate.

    Where a command cannot be changed, PIPEPROF_TRACE=DIR in the environment has every Python process that
    iterates a DataLoader observed.
    """
    if not as_module and script.endswith((".yaml", ".yml")):
        raise MeasureError(f"{script} is no Python script", f"for a scenario: pipeprof run {script}")
    if not as_module:
        _refuse_absent(Path(script))
    from pipeprof.record.directories import refuse_recorded

    if out is not None:
        refuse_recorded(out)
    from pipeprof.measure.session.job import here
    from pipeprof.measure.session.processes.chosen import choose
    from pipeprof.measure.session.processes.trial import read_trial
    from pipeprof.measure.session.script import run_unobserved, trace_script
    from pipeprof.record.remote.outgoing import address

    rank = here()  # a script may make one of itself: that is its own business, and reported here
    chosen = choose(ranks, every)
    if rank is not None and not chosen.holds(rank.rank):
        ctx.exit(run_unobserved(script, arguments, as_module))

    def tell(traced: Traced) -> None:
        if rank is None:
            _flush_output()
            if traced.runs.elsewhere and (settings or tries or steps or seconds):
                own = "--set, --try, --steps and --seconds are for the script's own process"
                click.echo(f"pipeprof: {own}, and were not tried in those that it started", err=True)
            _tell(traced.runs, script, page=not no_report, quiet=quiet, verbose=verbose, probe=probe_storage)
            _ask(traced.runs, page=not no_report, quiet=quiet or probe_storage, verbose=verbose)
        elif rank.rank == chosen.first and traced.written:  # they are reported together, when all have ended
            job = address(short(traced.runs.directory.parent))
            which = "all ranks" if not chosen.known else f"the ranks observed ({chosen.text})"
            say(f"pipeprof: see {which} with `pipeprof report {job}`", err=True)

    def tell_at_signal(traced: Traced) -> None:
        if rank is None and (traced.runs.steps or traced.runs.ranks or traced.runs.processes):
            _tell(traced.runs, script, page=False, quiet=quiet, verbose=verbose)

    trial = read_trial(settings, steps, seconds, then_exit, quiet, tries)
    trial = replace(trial, probes_scaling=probe_scaling and rank is None)
    traced = trace_script(
        script,
        arguments,
        out,
        as_module,
        telemetry_hz,
        lines,
        trial,
        warmup_steps,
        tell_at_signal,
        tell,
        files=files or probe_storage,
        hang_after=hang_after,
        keep_command=not no_command,
        name=run_name,
        kernels=kernels,
        every_batch=every_batch,
    )
    if traced.in_parent:
        tell(traced)
    ctx.exit(traced.exit_code)


def _refuse_absent(script: Path) -> None:
    """Refuse a script that is not there before torch is imported. Raises `MeasureError`."""
    try:
        script.stat()
    except OSError as error:
        raise MeasureError(
            f"{script} cannot be read: {error.strerror}", "give a Python script, or -m and a module"
        ) from error


def _tell(runs: Gathered, script: str, page: bool, quiet: bool, verbose: bool, probe: bool = False) -> None:
    """Report what was observed: the job that the script started, its processes, or its own run."""
    from pipeprof.cli.show import merge, processes
    from pipeprof.record.remote.outgoing import address

    directory = short(runs.directory)
    if not quiet:
        for what in runs.unobserved:
            say(f"pipeprof: not observed: {what}", err=True)
    if runs.ranks:
        merge.report_job(directory, page, quiet)
    if runs.processes and not quiet:
        processes.tell(directory, page, to_stderr=True)
    if runs.ranks or runs.processes:
        return
    if runs.steps == 0 and quiet:
        return  # there is nothing to report
    if runs.steps == 0:
        problem = f"{script} took no batch from a DataLoader before it ended"
        say(f"pipeprof: {problem}; its record is {address(directory)}", err=True)
    else:
        if probe:
            _probe(runs.directory, quiet)
        report_run(directory, page=page, quiet=quiet, verbose=verbose)
        if not quiet:
            tell_comparison(directory)


def _ask(runs: Gathered, page: bool, quiet: bool, verbose: bool) -> None:
    """Offer on a terminal to probe the storage; report again where that was wanted."""
    if quiet or runs.steps == 0 or runs.ranks or runs.processes:
        return
    from pipeprof.cli.measure.storage_question import wants_probe

    if wants_probe(runs.directory):
        _probe(runs.directory, quiet=False)
        report_run(short(runs.directory), page=page, quiet=False, verbose=verbose)


def _probe(directory: Path, quiet: bool) -> None:
    """Probe the storage of the run. What cannot be probed is said, and changes nothing else."""
    from pipeprof.measure.host.storage_probe import probe_storage

    if not quiet:
        say("pipeprof: reading some of the data files, for at most 5 s", err=True)
    try:
        probe_storage(directory)
    except PipeprofError as error:
        say(f"pipeprof: the storage was not probed: {error}", err=True)


def _flush_output() -> None:
    """Let the script's own output come first. A script may have closed it."""
    with suppress(OSError, ValueError, AttributeError):  # closed, or None
        sys.stdout.flush()
