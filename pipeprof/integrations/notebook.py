"""The cell magic of notebooks: `%load_ext pipeprof`, then `%%pipeprof` as a cell's first line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pipeprof.analyse.analysis import load
from pipeprof.errors import MeasureError
from pipeprof.integrations.block import observed_block
from pipeprof.record.directories import new_directory, remove_unused


def register(shell: Any) -> None:
    """Give an IPython shell the cell magic `%%pipeprof [DIRECTORY]`."""

    def pipeprof(line: str, cell: str) -> None:
        """Run the cell with every DataLoader observed, and show where its time went.

        The run is written to DIRECTORY, by default to a new one in runs/.
        """
        run_cell(shell, line, cell)

    shell.register_magic_function(pipeprof, "cell", "pipeprof")


def run_cell(shell: Any, line: str, cell: str) -> None:
    """Run a cell in its shell, observed; show the run, or say that no batch was taken."""
    from IPython.display import display

    words = shlex.split(line)
    if len(words) > 1:
        raise MeasureError(f"%%pipeprof {line}: one directory at most", "write %%pipeprof runs/mine")
    out = Path(words[0]) if words else new_directory("cell")
    with observed_block(out, "notebook cell") as session:
        result = shell.run_cell(cell)
    if session.steps.taken:
        display(load(session.directory))  # type: ignore[no-untyped-call, unused-ignore]
    else:
        print(f"pipeprof: no batch was taken from a DataLoader; see {session.directory}")
    remove_unused()
    result.raise_error()
