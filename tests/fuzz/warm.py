"""Imports, caches and threads of a process, made before its memory and its writes are watched."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from tests.factory import Plan, make_run
from tests.fuzz.harness import verb


def warm_up(directory: Path) -> None:
    """Ask everything once of a good run, in `directory`."""
    run = str(make_run(directory / "warm", Plan(batches=150), rank=0, world_size=1))
    forms = ("perfetto", "csv", "parquet", "json")
    with redirect_stdout(StringIO()):
        for arguments in (
            ["report", run],
            ["predict", run],
            ["compare", run, run],
            ["merge", run],
            ["report", "--share", run],
            ["report", "--markdown", run],
            ["check", run, "--max-stall", "5%"],
            ["list", str(directory)],
            *(["export", run, "--to", form] for form in forms),
        ):
            verb(arguments)()
