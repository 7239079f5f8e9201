"""The one question at the end of a trace on a terminal: shall the storage be asked what it gives?"""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeprof.errors import PipeprofError

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis

PATIENCE_S: Final = 20.0
"""Time after which no answer means no: there may be no one at the terminal."""
_QUESTION: Final = (
    "Whether the device gives more to more readers is not known. Read some of the run's own files to find "
    "out, for at most 5 s? Nothing of them is written. [y/N] "
)


def wants_probe(directory: Path, patience_s: float = PATIENCE_S) -> bool:
    """Ask where the run leaves open whether its device is full. False without a terminal, or an answer."""
    from pipeprof.analyse.analysis import load

    with suppress(
        PipeprofError, OSError, ValueError, AttributeError
    ):  # standard streams may be closed, or None
        if sys.stdin.isatty() and sys.stderr.isatty() and _leaves_open(load(directory)):
            click.echo(_QUESTION, nl=False, err=True)
            answered, _, _ = select.select([sys.stdin], [], [], patience_s)
            if answered:
                return sys.stdin.readline().strip().lower() in ("y", "yes")
            click.echo(err=True)
    return False


def _leaves_open(analysis: Analysis) -> bool:
    """Return True if the run waited for a device of unknown state, and names files that can be read."""
    from pipeprof.vocabulary import causes

    waited = analysis.verdict.cause in {cause.word for cause in (*causes.STORAGE, causes.PAGE_CACHE)}
    device = analysis.facts.device if analysis.facts is not None else None
    unknown = device is not None and device.state == "not-known"
    return waited and unknown and bool(analysis.run.meta.reading.files)
