"""Directory through which pipeprof and a job that it is attached to talk, as files.

pipeprof makes it, the job's side writes its state there, and `stop` asks it to leave. When the directory is
gone, or pipeprof is, the job's side leaves by itself and removes it. One whose pipeprof was killed before the
job knew of it is removed by the next pipeprof. It uses only the standard library: the job reads this file
before it imports anything.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "pipeprof-attach-"
_STATE, _STOP, _REQUEST = "state.json", "stop", "request.json"
_UNASKED_S: Final = 60.0
"""Age from which a directory without a request is assumed to be a dead pipeprof's: the request is written at
once."""


class Control:
    """The directory, from either side."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    @classmethod
    def make(cls, request: dict[str, Any]) -> Control:
        """Make a directory that holds a request, and who asks; remove those that no one else will."""
        remove_abandoned()
        control = cls(tempfile.mkdtemp(prefix=PREFIX))
        pid = os.getpid()
        who = {"pid": pid, "started": started(pid), "pids": _numbering()}
        control._write(_REQUEST, {**request, **who})
        return control

    def request(self) -> dict[str, Any]:
        """Return what pipeprof asks for. Raises `OSError` if it has given up."""
        asked: dict[str, Any] = json.loads((self.directory / _REQUEST).read_text())
        return asked

    def name_workers(self, pids: list[int]) -> None:
        """Say which processes are workers, and are entered as such."""
        self._write(_REQUEST, {**self.request(), "workers": pids})

    def state(self, of: int | None = None) -> dict[str, Any]:
        """Return what the job, or its worker of pid `of`, has said last; empty if nothing."""
        with suppress(OSError, ValueError):
            said: dict[str, Any] = json.loads((self.directory / _name(of)).read_text())
            return said
        return {}

    def forget_state(self) -> None:
        """Forget what the job has said last."""
        (self.directory / _STATE).unlink(missing_ok=True)

    def say(self, of: int | None = None, **state: Any) -> None:
        """Say a state, in the job. If pipeprof has gone, no one hears it."""
        with suppress(OSError):
            self._write(_name(of), state)

    def wait(self, names: tuple[str, ...], patience_s: float, of: int | None = None) -> dict[str, Any]:
        """Wait for one of the states `names`; empty if it does not come."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            state = self.state(of)
            if word_of(state) in names:
                return state
            time.sleep(0.02)
        return {}

    def stop(self) -> None:
        """Ask the job's side to leave."""
        with suppress(OSError):
            (self.directory / _STOP).touch()

    def is_over(self, asked: dict[str, Any]) -> str | None:
        """Return why the job's side must leave: "stopped", or "gone" if pipeprof is; else None."""
        if not (self.directory / _REQUEST).exists() or started(asked["pid"]) != asked["started"]:
            return "gone"
        return "stopped" if (self.directory / _STOP).exists() else None

    def remove(self) -> None:
        """Remove the directory."""
        for _ in range(2):  # a worker may say its state meanwhile, into a directory that is half removed
            shutil.rmtree(self.directory, ignore_errors=True)

    def is_abandoned(self) -> bool:
        """Return whether its pipeprof is gone: as far as that can be seen from here."""
        try:
            asked = self.request()
            if asked["pids"] != _numbering():  # of another container, which shares the directory
                return False
            return bool(started(asked["pid"]) != asked["started"])
        except FileNotFoundError:
            return _age_s(self.directory) > _UNASKED_S
        except (OSError, ValueError, KeyError):
            return False

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.directory / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(content))
        temporary.replace(self.directory / name)


def remove_abandoned() -> None:
    """Remove the directories whose pipeprof was killed before a job could see that."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        control = Control(str(path))
        if control.is_abandoned():
            control.remove()


def _numbering() -> str:
    """Return the identity of the process numbers that are valid here."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def word_of(state: dict[str, Any]) -> str:
    """Return the word of a state; empty if none has been said."""
    return str(state.get("state", ""))


def _name(of: int | None) -> str:
    return _STATE if of is None else f"worker-{of}.json"


def started(pid: int) -> int | None:
    """Return when process `pid` was started, in the kernel's ticks; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
