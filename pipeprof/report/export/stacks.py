"""Sampled stacks for flame graphs: a speedscope file, or folded text.

Both hold one profile for the training thread and one for each worker. The outermost frame of a stack is the
stage in which it was sampled, in brackets; weights are nanoseconds of wall time. A worker's stacks begin
below torch's own calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipeprof import __version__
from pipeprof.analyse.why.lines import Line, Lines, Stack, read_lines
from pipeprof.errors import TraceError
from pipeprof.record.files import write_atomically
from pipeprof.record.reader import Run
from pipeprof.record.schema import MAIN_PROCESS

Writer = Callable[[Run, Path], Path]
SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def write_speedscope(run: Run, path: Path) -> Path:
    """Write a file for speedscope.app.

    Raises `TraceError` if no line was sampled, or if the file cannot be written.
    """
    lines = _sampled(run)
    frames: dict[tuple[str, str, int], int] = {}
    profiles = [_profile(name, stacks, lines, frames) for name, stacks in _threads(lines).items()]
    shared = [
        {"name": name} if not file else {"name": name, "file": file, "line": line}
        for name, file, line in frames
    ]
    content = {
        "$schema": SCHEMA,
        "name": run.meta.name or Path(run.place).name,
        "exporter": f"pipeprof {__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": shared},
        "profiles": profiles,
    }
    return _write(path, json.dumps(content, ensure_ascii=False, separators=(",", ":")))


def write_collapsed(run: Run, path: Path) -> Path:
    """Write folded stacks, one a line: frames, outermost first, and the weight. Raises as the other does."""
    lines = _sampled(run)
    rows = [
        f"{';'.join(_folded(name, stack, lines))} {stack.wall_ns}\n"
        for name, stacks in _threads(lines).items()
        for stack in stacks
    ]
    return _write(path, "".join(rows))


FORMS: Final[Mapping[str, tuple[Writer, str]]] = {
    "speedscope": (write_speedscope, "speedscope.json"),
    "collapsed": (write_collapsed, "stacks.folded"),
}
"""By format: what writes it, and the usual name of its file."""


def _sampled(run: Run) -> Lines:
    lines = read_lines(run)
    if not lines:
        raise TraceError(
            f"{run.directory}: no lines were sampled", "run it under `pipeprof trace`, without --no-lines"
        )
    return lines


def _write(path: Path, text: str) -> Path:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
    return path


def _threads(lines: Lines) -> Mapping[str, list[Stack]]:
    """Return the stacks by thread: the training thread first, then the workers of each loader."""
    stacks = sorted(lines.stacks, key=lambda stack: (stack.worker, stack.loader or 0, -stack.wall_ns))
    several = len({stack.loader for stack in stacks if stack.worker != MAIN_PROCESS}) > 1
    threads: dict[str, list[Stack]] = {}
    for stack in stacks:
        threads.setdefault(_thread(stack, several), []).append(stack)
    return threads


def _thread(stack: Stack, several: bool) -> str:
    if stack.worker == MAIN_PROCESS:
        return "training thread"
    return f"{f'loader {stack.loader}, ' if several else ''}worker {stack.worker}"


def _profile(
    name: str, stacks: list[Stack], lines: Lines, frames: dict[tuple[str, str, int], int]
) -> dict[str, Any]:
    """Return one sampled profile; new frames are added to `frames`."""
    samples = []
    for stack in stacks:
        keys = [(f"[{stack.stage}]", "", 0), *(_frame(line, lines) for line in stack.lines)]
        samples.append([frames.setdefault(key, len(frames)) for key in keys])
    return {
        "type": "sampled",
        "name": name,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": sum(stack.wall_ns for stack in stacks),
        "samples": samples,
        "weights": [stack.wall_ns for stack in stacks],
    }


def _frame(line: Line, lines: Lines) -> tuple[str, str, int]:
    return line.function, lines.shown(line.file), line.line


def _folded(thread: str, stack: Stack, lines: Lines) -> Iterator[str]:
    yield thread
    yield _plain(f"[{stack.stage}]")
    for line in stack.lines:
        yield _plain(f"{line.function} ({lines.shown(line.file)}:{line.line})")


def _plain(frame: str) -> str:
    """Return a frame without the characters that separate frames and stacks."""
    return frame.replace(";", ",").replace("\n", " ")
