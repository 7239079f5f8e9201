"""One verb, or one call, in this process and under limits: what it came to."""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from pipeprof.cli import cli
from pipeprof.errors import PipeprofError
from tests.fuzz.values import HOSTILE

MOST_S: Final = 20.0
"""CPU time that a case may take; waiting, which other programs lengthen, is ended after three times that."""
MOST_BYTES: Final = 2 << 30
TITLE: Final = HOSTILE[:4]
"""Begins a control sequence that sets the title of a terminal."""
WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES: Final = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)

FAILURES: Final = ("traceback", "slow", "memory", "outside", "terminal", "warning")
"""What no case may come to. `terminal`: what was printed drives it. `warning`: a library's own."""


class TooSlowError(BaseException):
    """The alarm: no `except Exception` on the way may take it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one call: `answer`, `refusal`, or one of `FAILURES`."""

    word: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.word in FAILURES


class _Terminal(io.StringIO):
    """Kept text that claims to be shown, so that nobody strips what drives a terminal."""

    def isatty(self) -> bool:
        return True


class Guard:
    """Watches for writes outside `allowed`. An audit hook cannot be taken away: the one idles."""

    def __init__(self) -> None:
        self.allowed: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & WRITES:
                self._note(event, path)
        elif event in CHANGES:
            # where directories are walked by descriptor, paths are relative to it
            at = next((each for each in arguments[1:] if isinstance(each, int) and each > 2), None)
            home = "" if at is None else str(Path(f"/proc/self/fd/{at}").readlink())
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    self._note(event, os.path.join(home, os.fsdecode(path)))  # noqa: PTH118
        elif event in ("socket.connect", "subprocess.Popen", "os.system"):
            self.seen.append(event)

    def _note(self, event: str, path: str | bytes) -> None:
        where = os.path.realpath(os.fsdecode(path))
        inside = f"{where}/".startswith(f"{self.allowed}/") or where == os.devnull
        if not inside and "/__pycache__/" not in where:  # a verb is imported when it is asked for
            self.seen.append(f"{event} {where}")

    @contextmanager
    def only(self, allowed: Path) -> Iterator[list[str]]:
        self.allowed, self.seen = os.path.realpath(allowed), []
        try:
            yield self.seen
        finally:
            self.allowed = None


_guard: list[Guard] = []


@contextmanager
def limited() -> Iterator[None]:
    """Limit the memory that this process may take on to `MOST_BYTES`, and the time of what is inside."""

    def late(signum: int, frame: object) -> None:
        raise TooSlowError

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handlers = [(each, signal.signal(each, late)) for each in (signal.SIGPROF, signal.SIGALRM)]
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    signal.setitimer(signal.ITIMER_REAL, 3 * MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in handlers:
            signal.signal(each, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(call: Callable[[], Any], directory: Path) -> Outcome:
    """Return what a call comes to that may write below `directory` alone."""
    if not _guard:
        _guard.append(Guard())
    shown, told = _Terminal(), _Terminal()
    word, detail = "answer", ""
    with (
        _guard[0].only(directory) as outside,
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(shown),
        redirect_stderr(told),
    ):
        warnings.simplefilter("always")
        try:
            with limited():
                call()
        except (PipeprofError, click.ClickException) as error:
            word, detail = "refusal", str(error)
            told.write(f"{_clean(detail)}\n")
        except SystemExit as error:
            word = "answer" if error.code in (None, 0, 1, 3) else "refusal"
        except TooSlowError as error:
            word, detail = "slow", _where(error)
        except MemoryError as error:
            word, detail = "memory", _where(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            word, detail = "traceback", _where(error)
    text = shown.getvalue() + told.getvalue()
    if outside and word in ("answer", "refusal"):
        return Outcome("outside", "; ".join(outside[:3]))
    if (TITLE in text or "\u202e" in text) and word in ("answer", "refusal"):
        return Outcome(
            "terminal", next(line for line in text.splitlines() if TITLE in line or "\u202e" in line)
        )
    if warned and word in ("answer", "refusal"):
        return Outcome("warning", f"{warned[0].filename}:{warned[0].lineno}: {warned[0].message}")
    return Outcome(word, detail)


def _clean(text: str) -> str:
    """Return an error as the door prints it."""
    from pipeprof.units import printable

    return printable(text)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "pipeprof/" in frame.filename] or list(frames)
    place = " < ".join(
        f"{frame.filename.rpartition('pipeprof/')[2]}:{frame.lineno}" for frame in reversed(ours[-3:])
    )
    return f"{type(error).__name__}: {str(error)[:120]} at {place}"


def verb(arguments: Sequence[str]) -> Callable[[], Any]:
    """Return a call of `pipeprof ARGUMENTS`."""

    def call() -> None:
        code = cli.main(args=list(arguments), prog_name="pipeprof", standalone_mode=False)
        if isinstance(code, int) and code:
            raise SystemExit(code)

    return call
