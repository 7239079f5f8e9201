"""Runs the course: measures what is not measured yet, and keeps the outcome of each measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pipeprof.errors import INTERRUPTED, PipeprofError
from pipeprof.lesson.kept import LESSON_JSON, LessonMeta, read_kept, save_kept
from pipeprof.lesson.measurements import Display, Measurement

Say = Callable[[str], None]


class Record:
    """`lesson.json` while the course is taken."""

    def __init__(self, out: Path, quick: bool) -> None:
        """Take up the course in `out`, or begin one. Raises `PipeprofError` if something else is there."""
        self.out = out
        kept = read_kept(LessonMeta, out / LESSON_JSON)
        if kept is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise PipeprofError(f"{out} exists and is not a lesson", "choose another place with --out")
        if kept is not None and kept.quick != quick:
            which = "quick" if kept.quick else "whole"
            raise PipeprofError(f"{out} holds the {which} course", "choose another place with --out")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._meta = kept or LessonMeta(quick=quick, created_at=now)
        save_kept(out / LESSON_JSON, self._meta)

    def note(self, name: str, missed: Sequence[str] = (), error: str = "") -> None:
        """Keep which expectations a measurement missed, or how it failed, in place of what was known."""
        others = {key: value for key, value in self._meta.missed.items() if key != name}
        errors = {key: value for key, value in self._meta.errors.items() if key != name}
        self._meta = replace(
            self._meta,
            missed=others | ({name: tuple(missed)} if missed else {}),
            errors=errors | ({name: error} if error else {}),
        )
        save_kept(self.out / LESSON_JSON, self._meta)


def take(course: Sequence[Measurement], record: Record, say: Say, display: Display | None = None) -> int:
    """Run the measurements that are missing, one after the other; return the exit code.

    What fails is noted, and the rest goes on. Ctrl-C ends it; a later call goes on from there.
    """
    code = 0
    for number, measurement in enumerate(course, 1):
        place = f"[{number}/{len(course)}] {measurement.name}"
        if measurement.done(record.out):
            say(f"{place}: already measured")
            continue
        say(place)
        try:
            result = measurement.measure(record.out, display)
        except PipeprofError as error:  # the others may still succeed
            say(f"pipeprof: {error}")
            record.note(measurement.name, error=str(error))
            code = code or error.exit_code
        except KeyboardInterrupt:
            say("Interrupted: the same command goes on from here.")
            return INTERRUPTED
        else:
            if result.sentence:
                say(f"  {result.sentence}")
            if result.missed:
                say(f"  Not as expected: {'; '.join(result.missed)}.")
            record.note(measurement.name, result.missed)
    return code
