"""The processes of one traced program that are not ranks of a job, reported individually."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from pipeprof.cli.runs import forecast, written_page
from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError
from pipeprof.record.directories import processes
from pipeprof.record.schema import REPORT_HTML
from pipeprof.simulate.forecast import Forecast
from pipeprof.units import plural, printable

WIDTH = 80


def print_processes(directory: Path, pages: bool = True, to_stderr: bool = False) -> None:
    """Print a paragraph on each process, and write its page; report those that cannot be read."""
    for run in processes(directory):
        try:
            answer = forecast(run)
            page = written_page(answer, run / REPORT_HTML) if pages else None
        except (PipeprofError, OSError) as error:
            say(f"pipeprof: {run} was written and cannot be reported: {printable(str(error))}", err=True)
            continue
        for line in _lines(answer, page):
            say(line, err=to_stderr)


def print_json(directory: Path) -> None:
    """Print the answers of all processes, by the name of their directory."""
    runs = processes(directory)
    answers = {run.name: forecast(run).publish().as_dict() for run in runs}
    say(json.dumps({"schema": 1, "processes": answers}, indent=2))


def _lines(answer: Forecast, page: Path | None) -> list[str]:
    run, verdict = answer.analysis.run, answer.publish()
    steps = verdict.measured.steps
    count = "no step" if not steps else plural(steps, "step")
    head = f"{run.directory.name} · {run.meta.name or 'unnamed'} · {count} measured"
    said = [head, *textwrap.wrap(verdict.sentence, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    return [printable(line) for line in said] + ([f"  Report: {page}"] if page else [])
