"""Sending of this process's record to a URL, as seen from the process: none of it happens in the loop."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pipeprof
from pipeprof.environment import EVERY_BATCH, LINES, STARTED, TRACE, TRIAL
from pipeprof.measure.progress import say
from pipeprof.record.remote.outgoing import Outgoing, address, destination
from pipeprof.redact import redact

EVERY_S: Final = "PIPEPROF_UPLOAD_EVERY_S"
"""Seconds between two sendings of what is new; 15 by default."""
PATIENCE_S: Final = "PIPEPROF_UPLOAD_PATIENCE_S"
"""Seconds after the end of a run in which sending is tried again; 60 by default."""
_MAIN: Final = "from pipeprof.measure.session.upload.sender import main; main()"
_OURS: Final = (TRACE, LINES, EVERY_BATCH, TRIAL, STARTED)


class Uploader:
    """The process that sends the run of `directory`, part of what `root` stands for, to `url`."""

    def __init__(self, root: Path, url: str, directory: Path, removes: str) -> None:
        self._root, self._url, self._directory = root, url, directory
        self._pid = os.getpid()
        self._patience_s = _seconds(PATIENCE_S, 60.0)
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        # after all other places: nothing that lies beside the script, or beside us, takes another's name
        code = f"import sys; sys.path.append({str(Path(pipeprof.__file__).parent.parent)!r}); {_MAIN}"
        command = [sys.executable, "-P", "-c", code]
        self._process = subprocess.Popen(
            [*command, str(root), url, str(_seconds(EVERY_S, 15.0)), str(self._patience_s), removes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the program
            env=environment,
        )
        self.follow(directory)
        atexit.register(self.end)

    def follow(self, directory: Path) -> None:
        """Send the run from `directory` from now on."""
        self._directory = directory
        self._order({"directory": str(directory)})

    def end(self) -> None:
        """Wait until all is sent, and report what is not. Later calls do nothing, nor do forked
        children's."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        atexit.unregister(self.end)
        self._order({"end": True})
        try:
            answer, _ = self._process.communicate(timeout=self._patience_s + 30)
            told = json.loads(answer)
        except subprocess.TimeoutExpired:
            say(f"pipeprof: the record is still being sent to {redact(self._url)}")
            return
        except (OSError, ValueError):
            told = {"left": [str(self._directory)], "why": "the sending process was ended"}
        if told["left"]:
            say(
                f"pipeprof: {len(told['left'])} files of the record were not sent to "
                f"{redact(address(self._directory))}: {told['why']}. They stay in {self._directory}; "
                f"send them with `pipeprof upload {self._root}`"
            )

    def _order(self, order: dict[str, object]) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError, ValueError):  # it was ended from outside: `end` says so
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()


class _AtItsEnd:
    """Sends a run when its process ends, from the process itself: to `memory://`, which no other sees."""

    def __init__(self, root: Path, url: str) -> None:
        self._root, self._url, self._pid = root, url, os.getpid()
        atexit.register(self.end)

    def follow(self, directory: Path) -> None:
        """Do nothing: all of the root is sent."""

    def end(self) -> None:
        """Send all. Later calls do nothing, nor do forked children's."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        outgoing = Outgoing(self._root, self._url)
        outgoing.send_tree()
        outgoing.remove(self._root)


def begin_upload(directory: Path, is_rank: bool) -> Uploader | _AtItsEnd | None:
    """Begin to send the run that is written in `directory`; None if it stays there."""
    found = destination(directory)
    if found is None:
        return None
    if found[1].startswith("memory://"):
        return _AtItsEnd(*found)
    removes = "no" if os.environ.get(STARTED) else "own" if is_rank else "tree"
    try:
        return Uploader(*found, directory, removes)
    except OSError as error:
        say(f"pipeprof: the record stays in {directory}, and is not sent: {error}")
        return None


def _seconds(name: str, usual: float) -> float:
    with suppress(ValueError):
        seconds = float(os.environ.get(name, usual))
        return seconds if 0 <= seconds < float("inf") else usual
    return usual
