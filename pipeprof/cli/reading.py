"""How the verbs that read runs take them from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeprof.analyse.answer import Answer

run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
"""One run directory, handed to the command as `run: Path`."""


def read(path: Path) -> Answer:
    """Open and analyse a run. Raises `TraceError` where there is none."""
    from pipeprof.analyse.answer import load

    return load(path)
