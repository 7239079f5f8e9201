"""The runs of a directory while they are written: one, or those of a job's ranks or a program's processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeprof.analyse.live.run import WINDOW_S, LiveRun
from pipeprof.errors import TraceError
from pipeprof.record.directories import attempts, parts, processes


class LiveJob:
    """Follows all runs of a directory, those that come later too. Raises `TraceError` if there is none."""

    def __init__(self, directory: Path, window_s: float = WINDOW_S) -> None:
        self.directory, self._window_s = directory, window_s
        self.runs: dict[str, LiveRun] = {}
        """By rank or process; under "" the only one."""
        self._look_for_more()
        if not self.runs:
            self.runs[""] = LiveRun(directory, window_s)

    def poll(self) -> bool:
        """Read what is new. Return whether any of the runs still goes on."""
        if "" not in self.runs:
            self._look_for_more()
        going = {
            name for name, run in self.runs.items() if run.poll()
        }  # each is read, whatever the first says
        return bool(going)

    def _look_for_more(self) -> None:
        for name, path in _runs_in(self.directory).items():
            if name not in self.runs:
                with suppress(TraceError):  # it is being made
                    self.runs[name] = LiveRun(path, self._window_s)


def _runs_in(directory: Path) -> Mapping[str, Path]:
    """Return the runs of a job's last attempt, or of a program's processes, by what they are called."""
    later = attempts(directory)
    ranks = parts(later[-1] if later else directory)
    if ranks:
        return {f"rank {rank}": path for rank, path in ranks.items()}
    return {path.name.replace("-", " "): path for path in processes(directory)}
