"""`pipeprof trace train.py ARGS…`: run a training script with every DataLoader observed."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeprof.cli.options import (
    Destination,
    kernels_option,
    lines_option,
    name_option,
    no_report_option,
    quiet_option,
    verbose_option,
)
from pipeprof.cli.runs import print_comparison, report_run, short
from pipeprof.cli.say import say
from pipeprof.errors import MeasureError, PipeprofError

if TYPE_CHECKING:
    from pipeprof.measure.session.job import Rank
    from pipeprof.measure.session.processes.program import Gathered
    from pipeprof.measure.session.script import Traced
    from pipeprof.record.meta import ChosenRanks


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--out",
    type=Destination(),
    help="The run directory, or a URL such as s3://bucket/job (default: a new one in runs/).",
)
@name_option
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is a module, as with python -m.")
@no_report_option
@lines_option
@click.option(
    "--every-batch",
    is_flag=True,
    help="Observe every batch of a long run. By default, once 512 batches were taken, 1 of 16 is left out to "
    "measure the cost of observing, and 7 of 8 if that cost is above 1%.",
)
@quiet_option
@verbose_option
@click.option(
    "--telemetry-hz",
    type=float,
    default=0.0,
    help="Sample CPU, memory, disks and GPUs at this rate (default: 0, off; `run` uses 10).",
)
@click.option(
    "--files/--no-files",
    default=True,
    help="Record the names of some data files, for a later probe (default: on).",
)
@click.option(
    "--probe-storage",
    is_flag=True,
    help="Afterwards, read some data files for up to 5 s to find what their storage delivers to 1 to 16 "
    "readers.",
)
@click.option(
    "--probe-scaling",
    is_flag=True,
    help="Afterwards, make batches in 1, 2 and 4 processes for about 3 s to find how their cost grows with "
    "the number of workers.",
)
@click.option(
    "--set",
    "settings",
    metavar="LOADER.ARGUMENT=VALUE",
    multiple=True,
    help="Override an argument of the script's DataLoaders, such as loader.num_workers=8; "
    "val.num_workers=8 changes only the loader of that name. Also: prefetch_factor, pin_memory, "
    "persistent_workers, in_order, multiprocessing_context, worker_threads. Can be given several times.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="End the script's loops after this many batches, counted over all loaders. Code after the loop "
    "still runs; each further pass over a loader, such as the next epoch, yields one batch.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End the script's loops this long after the first request for a batch.",
)
@click.option(
    "--then-exit",
    is_flag=True,
    help="Then end the script as well, by SystemExit raised from its loader: for scripts that never end by "
    "themselves.",
)
@click.option(
    "--try",
    "tries",
    metavar="FIX",
    multiple=True,
    help="Try a fix that is not a loader argument, and undo it at the end: one-thread, gc-freeze, "
    "affinity, file-system-sharing, cached (keeps samples in memory for the passes after the first) "
    "or ram=DIR (reads DIR's files into the page cache if they fit; copies to /dev/shm cannot be tried "
    "without an edit). Can be given several times.",
)
@click.option("--warmup-steps", type=click.IntRange(min=0), default=0, help="Exclude this many first steps.")
@click.option(
    "--hang-after",
    type=click.FloatRange(min=0.1),
    help="When no batch has arrived for this many seconds, say which worker holds it, and where; 60 is a "
    "common choice.",
)
@click.option(
    "--ranks",
    metavar="0,8,16",
    help="In a job of several ranks, observe only these; the others run untouched.",
)
@click.option("--every", type=click.IntRange(min=1), help="Observe every Nth rank, starting with rank 0.")
@kernels_option
@click.option("--no-command", is_flag=True, help="Do not store the command line in the run.")
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
    """Run SCRIPT unmodified, with its ARGUMENTS; report on standard error where its DataLoaders' time went.

    The run is written however the script ends, and the script's exit code is kept. SIGTERM and SIGHUP, unless
    the script handles them, also leave a complete record and print the verdict. Processes that the script
    starts are observed too, each in its own part of the run's directory; ranks are analysed together as a
    job. Under torchrun each rank writes its own part and prints no report: `pipeprof report` shows all parts
    together. The same holds for ranks of srun, Open MPI, MPICH, Kubernetes indexed jobs, Ray Train, Lightning
    and accelerate.

    If the command cannot be changed, set PIPEPROF_TRACE=DIR in the environment: every Python process that
    iterates a DataLoader is then observed.
    """
    _refuse_unusable(script, as_module, out)
    from pipeprof.measure.session.job import here
    from pipeprof.measure.session.processes.chosen import choose
    from pipeprof.measure.session.processes.trial import read_trial
    from pipeprof.measure.session.script import TraceOptions, run_unobserved, trace_script

    rank = here()  # a script may make one of itself: that is its own business, and reported here
    chosen = choose(ranks, every)
    if rank is not None and not chosen.holds(rank.rank):
        ctx.exit(run_unobserved(script, arguments, as_module))
    trial = read_trial(settings, steps, seconds, then_exit, quiet, tries)
    options = TraceOptions(
        out,
        run_name,
        as_module,
        lines,
        telemetry_hz,
        warmup_steps,
        files=files or probe_storage,
        kernels=kernels,
        every_batch=every_batch,
        hang_after_s=hang_after,
        keep_command=not no_command,
        trial=replace(trial, probes_scaling=probe_scaling and rank is None),
    )
    changes_loaders = bool(settings or tries or steps or seconds)
    report = _Report(script, rank, chosen, changes_loaders, not no_report, quiet, verbose, probe_storage)
    traced = trace_script(script, arguments, options, report.at_signal, report.at_end)
    if traced.in_parent:
        report.at_end(traced)
    ctx.exit(traced.exit_code)


def _refuse_unusable(script: str, as_module: bool, out: Path | None) -> None:
    """Refuse, before torch is imported, what cannot be traced. Raises `MeasureError` and `TraceError`."""
    from pipeprof.record.directories import refuse_recorded

    if not as_module and script.endswith((".yaml", ".yml")):
        raise MeasureError(f"{script} is not a Python script", f"for a scenario: pipeprof run {script}")
    if not as_module:
        _refuse_absent(Path(script))
    if out is not None:
        refuse_recorded(out)


def _refuse_absent(script: Path) -> None:
    """Refuse a script that is not there before torch is imported. Raises `MeasureError`."""
    try:
        script.stat()
    except OSError as error:
        raise MeasureError(
            f"{script} cannot be read: {error.strerror}", "give a Python script, or -m and a module"
        ) from error


@dataclass(frozen=True, slots=True)
class _Report:
    """Report of a traced script, made when it ends."""

    script: str
    rank: Rank | None
    chosen: ChosenRanks
    changes_loaders: bool
    """True if an option changes the script's loaders."""
    page: bool
    quiet: bool
    verbose: bool
    probe: bool

    def at_end(self, traced: Traced) -> None:
        """Report the run, or the whole job if this is the rank that speaks for it."""
        from pipeprof.record.remote.outgoing import address

        if self.rank is None:
            _flush_output()
            if traced.runs.elsewhere and self.changes_loaders:
                own = "--set, --try, --steps and --seconds apply to the script's own process"
                click.echo(f"pipeprof: {own}, and were not tried in those that it started", err=True)
            self._show(traced.runs, page=self.page, probe=self.probe)
            self._offer_probe(traced.runs)
        elif self.rank.rank == self.chosen.first and traced.written:  # reported when all ranks have ended
            job = address(short(traced.runs.directory.parent))
            which = "all ranks" if not self.chosen.known else f"the ranks observed ({self.chosen.text})"
            say(f"pipeprof: see {which} with `pipeprof report {job}`", err=True)

    def at_signal(self, traced: Traced) -> None:
        """Report in the terminal alone: a signal leaves no time for a page."""
        if self.rank is None and (traced.runs.steps or traced.runs.ranks or traced.runs.processes):
            self._show(traced.runs, page=False, probe=False)

    def _show(self, runs: Gathered, page: bool, probe: bool) -> None:
        """Report what was observed: the job that the script started, its processes, or its own run."""
        from pipeprof.cli.show import merge, processes
        from pipeprof.record.remote.outgoing import address

        directory = short(runs.directory)
        if not self.quiet:
            for what in runs.unobserved:
                say(f"pipeprof: not observed: {what}", err=True)
        if runs.ranks:
            merge.report_job(directory, page, self.quiet)
        if runs.processes and not self.quiet:
            processes.print_processes(directory, page, to_stderr=True)
        if runs.ranks or runs.processes:
            return
        if runs.steps == 0:
            if not self.quiet:
                problem = f"{self.script} took no batch from a DataLoader before it ended"
                say(f"pipeprof: {problem}; its record is {address(directory)}", err=True)
            return
        if probe:
            _probe(runs.directory, self.quiet)
        report_run(directory, page=page, quiet=self.quiet, verbose=self.verbose)
        if not self.quiet:
            print_comparison(directory)

    def _offer_probe(self, runs: Gathered) -> None:
        """Offer on a terminal to probe the storage; report again if the user agrees."""
        if self.quiet or self.probe or runs.steps == 0 or runs.ranks or runs.processes:
            return
        from pipeprof.cli.measure.storage_question import wants_probe

        if wants_probe(runs.directory):
            _probe(runs.directory, quiet=False)
            report_run(short(runs.directory), page=self.page, quiet=False, verbose=self.verbose)


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
