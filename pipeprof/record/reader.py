"""The reader of run directories, whole or torn.

A run that was killed keeps its streams, and they are read up to the tear, so that at most the time since the
last flush is lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeprof.errors import TraceError
from pipeprof.record.directories import attempts, parts, processes
from pipeprof.record.meta import RunMeta
from pipeprof.record.plain_files import read_text
from pipeprof.record.remote.incoming import is_recent
from pipeprof.record.schema import RUN_JSON, Status
from pipeprof.redact import redact

if TYPE_CHECKING:
    import pyarrow as pa


class Run:
    """Run, read. Tables are read when first asked for and are empty if nothing was recorded.

    What reads them is imported then, too: a list of many runs asks for none.
    """

    def __init__(self, directory: Path, meta: RunMeta) -> None:
        self.directory = directory
        self.place = redact(str(directory))
        """The directory as it is shown."""
        self.meta = meta
        self._tables: dict[str, pa.Table] = {}

    @property
    def status(self) -> Status:
        """Return the status with which the run ended."""
        return self.meta.status

    def reopened(self) -> Run:
        """Return the same run with no table in memory."""
        return Run(self.directory, self.meta)

    def table(self, name: str) -> pa.Table:
        """Return the table `name` of `TABLES`, whole."""
        from pipeprof.record.tables import read_table

        if name not in self._tables:
            self._tables[name] = read_table(self.directory, name)
        return self._tables[name]

    def pieces(self, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of a table, piece by piece: for tables that are long and read once."""
        from pipeprof.record.tables import read_pieces

        if name in self._tables:
            yield self._tables[name].select(columns)
            return
        yield from read_pieces(self.directory, name, columns)


def load(path: Path | str) -> Run:
    """Open a run directory. A run that says `running` is `partial` if its process is gone, or cannot be seen
    from here: one of another machine, or of this one before it was started anew.

    Raises `TraceError` if there is no run, or one of a newer schema.
    """
    directory = Path(path)
    try:
        text = read_text(directory / RUN_JSON)
    except (FileNotFoundError, NotADirectoryError) as error:
        problem, remedy = (
            f"holds no run: it has no {RUN_JSON}",
            "give the directory of a run: `pipeprof list` shows them",
        )
        if ranks := parts(directory):
            problem = f"holds the runs of {len(ranks)} ranks, and is none itself"
            remedy = f"see them with `pipeprof report {directory}`, or give one of them"
        elif others := processes(directory):
            problem = f"holds the runs of {len(others)} processes, and is none itself"
            remedy = f"see them with `pipeprof report {directory}`, or give one of them"
        elif later := attempts(directory):
            problem = "holds no run of a job's first attempt, but of those that came after it"
            remedy = f"see the last with `pipeprof report {later[-1]}`"
        raise TraceError(f"{directory} {problem}", remedy) from error
    except (OSError, ValueError) as error:
        raise TraceError(f"{directory / RUN_JSON} cannot be read: {error}") from error
    meta = RunMeta.from_json(text, directory / RUN_JSON)
    if meta.status == "running" and not _alive(meta, directory):
        meta = replace(meta, status="partial")
    return Run(directory, meta)


def boot_id() -> str | None:
    """Return the id of this machine's boot; None if the kernel does not report one."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _alive(meta: RunMeta, directory: Path) -> bool:
    """Return whether the process that writes a run is there.

    Of another machine its number says nothing here: of a run at a URL it is what came there last that does.
    """
    here = (meta.boot_id in (None, boot_id())) and (meta.host in (None, socket.gethostname()))
    if meta.pid is None or not here:
        return is_recent(directory)
    try:
        os.kill(meta.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return not _is_zombie(meta.pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and has not been waited for, as in a container without an init."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    return False
