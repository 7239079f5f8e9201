"""`pipeprof compare A B --rerun N`: run both commands again, in turn, so that both meet the same machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeprof.cli.runs import read, short
from pipeprof.cli.say import say
from pipeprof.errors import InconclusiveError, MeasureError

if TYPE_CHECKING:
    from pipeprof.analyse.analysis import Analysis

_LAST_LINES: Final = 3
"""Lines of a failed command's own output that are shown."""


def print_repeated(base: Analysis, other: Analysis, times: int, as_json: bool, force: bool) -> int:
    """Repeat both runs and print how they compare; return the exit code.

    Raises `MeasureError` if a command cannot be repeated or fails, `InconclusiveError` if a run of it has no
    measured rate.
    """
    from pipeprof.analyse.differences import repeated
    from pipeprof.record.directories import new_directory
    from pipeprof.report.compare import repeated_lines

    commands = [_command(each) for each in (base, other)]
    place = new_directory("rerun")
    pairs = []
    for number in range(1, times + 1):
        pair = [
            _run(command, place / f"{name}-{number}", f"{name} {number} of {times}")
            for name, command in zip("ab", commands, strict=True)
        ]
        pairs.append((pair[0], pair[1]))
    said = repeated(pairs)
    names = [str(short(each.run.directory.absolute())) for each in (base, other)]
    if as_json:
        data = {"schema": 1, "base": names[0], "other": names[1], "directory": str(place), **asdict(said)}
        say(json.dumps(data, indent=2))
    else:
        for line in (*repeated_lines(names[0], names[1], said), f"The runs: {place}"):
            say(line)
    return 0 if said.is_fair or force else InconclusiveError.exit_code


def _command(analysis: Analysis) -> list[str]:
    from pipeprof.report.wording.command import again

    words = again(analysis.run.meta)
    if not words:
        raise MeasureError(
            f"{analysis.run.directory} cannot be repeated: it was not made by `pipeprof run` or `trace`, or "
            "its command is not kept whole",
            "run the two by hand, in turn",
        )
    return words


def _run(words: list[str], out: Path, what: str) -> Analysis:
    """Run a command of pipeprof again, into `out`, and read its run."""
    say(f"pipeprof: {what}: {' '.join(words)}", err=True)
    own = ["--out", str(out), "--no-report", *(["--quiet"] if words[0] == "trace" else [])]
    command = [sys.executable, "-m", "pipeprof", words[0], *own, *words[1:]]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise MeasureError(
            f"`pipeprof {' '.join(words)}` ended with {done.returncode}: {last}", "run it by hand"
        )
    return read(out)
