"""The sampled stacks of a run: which lines of the user's code each owner's time was spent in."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from pipeprof.record.reader import Run
from pipeprof.vocabulary import owners

WAIT: Final = "wait"
MAIN: Final = "main"
"""Stages of the training thread: it waits for a batch, or runs the loop's own code."""
MOST_LINES: Final = 3
"""Number of lines that are shown of an owner."""
LEAST_SHARE: Final = 0.05
"""Share of an owner's time below which lines are not shown."""

_LIBRARY: Final = re.compile(r"^<|/(?:site|dist)-packages/|/lib(?:64)?/python3[.\d]*/|/pipeprof/measure/")

_INSTALLED: Final = re.compile(r".*/(?:site|dist)-packages/|.*/lib(?:64)?/python3[.\d]*/")
"""Path that precedes the name of a module of an installed package, or else of Python itself."""


class Line(NamedTuple):
    """A line of a function, as it was recorded."""

    file: str
    line: int
    function: str
    is_generator: bool = False

    @property
    def is_library(self) -> bool:
        """Return True for a line of Python itself or of an installed package."""
        return _is_library(self.file)


def _is_library(file: str) -> bool:
    return _LIBRARY.search(file) is not None


@dataclass(frozen=True, slots=True)
class HotLine:
    """A line that an owner's time was spent in."""

    owner: str
    file: str
    """Path relative to the folder that holds all of the user's files of the run."""
    line: int
    function: str
    share: float
    """Share of the owner's samples, by the time that each stands for."""
    call: str = ""
    """Call made on that line: the library's function under it, if there is one."""
    path: str = ""
    """The file as it was recorded."""

    @property
    def is_library(self) -> bool:
        """Return True for a line of Python itself or of an installed package."""
        return _is_library(self.path)

    @property
    def place(self) -> str:
        """Return the line as people write it: file:line."""
        return f"{self.file}:{self.line}"

    def as_dict(self) -> dict[str, str | int | float]:
        """Return plain values, as in `report --json`."""
        return {
            "owner": self.owner,
            "file": self.file,
            "line": self.line,
            "function": self.function,
            "share": self.share,
            "call": self.call,
        }


class Stack(NamedTuple):
    """A sampled stack of one stage, added up over the run."""

    stage: str
    loader: int | None
    """Loader that it belongs to; None for the training thread in the loop."""
    worker: int
    """Worker's number; `pipeprof.record.schema.MAIN_PROCESS` for the process that runs the loop."""
    lines: tuple[Line, ...]
    """Lines of the stack, outermost first."""
    wall_ns: int
    cpu_ns: int
    samples: int


class Lines:
    """Sampled stacks of a run. `root` is the folder of the user's files; None for that of these stacks and of
    `files`, which hold the user's code too."""

    def __init__(self, stacks: Iterable[Stack], root: str | None = None, files: Collection[str] = ()) -> None:
        self.stacks = tuple(stacks)
        self._given_root, self._files = root, files

    def __bool__(self) -> bool:
        return bool(self.stacks)

    def of_stage(self, stage: str) -> tuple[Stack, ...]:
        """Return the stacks that were sampled in `stage`."""
        return self._by_stage.get(stage, ())

    @cached_property
    def _by_stage(self) -> dict[str, tuple[Stack, ...]]:
        by_stage: dict[str, list[Stack]] = {}
        for stack in self.stacks:
            by_stage.setdefault(stack.stage, []).append(stack)
        return {stage: tuple(stacks) for stage, stacks in by_stage.items()}

    def owners(self) -> tuple[str, ...]:
        """Return the owners whose time was sampled, most samples first; waiting is not an owner here."""
        totals: dict[str, int] = {}
        for stack in self.stacks:
            if stack.stage != WAIT:
                owner = owners.MAIN.name if stack.stage == MAIN else owners.of_stage(stack.stage)
                totals[owner] = totals.get(owner, 0) + stack.wall_ns
        return tuple(sorted(totals, key=lambda owner: -totals[owner]))

    def hot(self, owner: str) -> tuple[HotLine, ...]:
        """Return the lines that `owner`'s time was spent in; none if none was sampled.

        The first ends the heaviest path: from the outermost frame, always the line that most of the time went
        through. So a function whose time is spread over its lines comes before one costly line elsewhere. The
        others follow by their own shares.
        """
        return self._hot(owner, self._of_owner(owner))

    def in_sampler(self) -> tuple[HotLine, ...]:
        """Return the lines that the sampler's time was spent in, while the loop asked for a batch."""
        inside = []
        for stack in self.of_stage(WAIT):
            asked = [place for place, line in enumerate(stack.lines) if line.function.endswith(_ASKS_SAMPLER)]
            if asked:
                inside.append(stack._replace(lines=stack.lines[asked[-1] + 1 :]))
        return self._hot(owners.MAIN.name, inside)

    def in_next(self) -> tuple[HotLine, ...]:
        """Return the lines of `next` itself, while the loop asked for a batch and none was being made."""
        inside = [
            stack for stack in self.of_stage(WAIT) if any(_LOADER.search(line.file) for line in stack.lines)
        ]
        return self._hot(owners.MAIN.name, inside)

    def _hot(self, owner: str, stacks: Sequence[Stack]) -> tuple[HotLine, ...]:
        whole_ns = sum(stack.wall_ns for stack in stacks)
        if whole_ns == 0:
            return ()
        totals: dict[Line, int] = {}
        calls: dict[Line, dict[str, int]] = {}
        for stack in stacks:
            blamed, called = _blamed(stack.lines)
            if blamed is None:
                continue
            totals[blamed] = totals.get(blamed, 0) + stack.wall_ns
            under = calls.setdefault(blamed, {})
            under[called] = under.get(called, 0) + stack.wall_ns
        first = _heaviest(stacks)
        ranked = sorted(totals.items(), key=lambda item: (item[0] != first, -item[1]))[:MOST_LINES]
        return tuple(
            HotLine(
                owner,
                self.shown(line.file),
                line.line,
                line.function,
                ns / whole_ns,
                max(calls[line].items(), key=lambda item: item[1])[0],
                line.file,
            )
            for line, ns in ranked
            if ns / whole_ns >= LEAST_SHARE
        )

    def _of_owner(self, owner: str) -> tuple[Stack, ...]:
        stacks = self.of_stage(stage_of(owner))
        if owner != owners.MAIN.name:
            return stacks
        # What has no line of the user's in it, as Python's end has, is not the loop's where others have some.
        users = tuple(stack for stack in stacks if any(not line.is_library for line in stack.lines))
        stacks = users or stacks
        host = (stack for stack in stacks if _is_host_work(stack.lines))
        return tuple(stack._replace(wall_ns=stack.cpu_ns) for stack in host) or stacks

    def host_share(self) -> float | None:
        """Return the share of the training thread's time in the loop that it computed outside of torch.

        That is time on the CPU below a generator that stands between the loader and the loop, or in Python's
        and other libraries. A line of the user's own that no generator leads to may call torch without a
        frame of torch's, and is not counted. None if the loop was not sampled.
        """
        return self.host_ns / self.body_ns if self.body_ns else None

    @cached_property
    def body_ns(self) -> int:
        """Return the time of the training thread in the loop's body, as far as it was sampled."""
        return sum(stack.wall_ns for stack in self.of_stage(MAIN))

    @property
    def body_cpu_share(self) -> float | None:
        """Return the share of the loop's body that its thread was on a core for; None if not sampled."""
        cpu_ns = sum(stack.cpu_ns for stack in self.of_stage(MAIN))
        return min(1.0, cpu_ns / self.body_ns) if self.body_ns else None

    @cached_property
    def host_ns(self) -> int:
        """Return the CPU time of the training thread in the loop outside of torch."""
        return sum(stack.cpu_ns for stack in self.of_stage(MAIN) if _is_host_work(stack.lines))

    @cached_property
    def root(self) -> str:
        """Return the folder that contains all of the user's files; empty if there is no such folder."""
        if self._given_root is not None:
            return self._given_root
        folders = {
            os.path.dirname(line.file)  # noqa: PTH120 - text of a record, of another machine perhaps
            for stack in self.stacks
            for line in stack.lines
            if not line.is_library
        } | {os.path.dirname(file) for file in self._files}  # noqa: PTH120 - the same
        try:
            return os.path.commonpath(folders) if folders else ""
        except ValueError:  # absolute and relative paths together
            return ""

    def shown(self, file: str) -> str:
        """Return a path for display: the user's below their common folder, a library's from its name."""
        installed = _INSTALLED.match(file)
        if installed is not None:
            return file[installed.end() :]
        inside = self.root and file.startswith(self.root + "/")
        return file[len(self.root) + 1 :] if inside else file


def _blamed(lines: tuple[Line, ...]) -> tuple[Line | None, str]:
    """Return the innermost line of the user's, and the library's function that was called on it."""
    for place in range(len(lines) - 1, -1, -1):
        if not lines[place].is_library:
            called = lines[place + 1].function if place + 1 < len(lines) else ""
            return lines[place], called
    return (lines[-1], "") if lines else (None, "")


def blamed_line(lines: tuple[Line, ...]) -> Line | None:
    """Return the innermost line of the user's code, or else of a library."""
    return _blamed(lines)[0]


def _heaviest(stacks: Iterable[Stack]) -> Line | None:
    """Return the line that ends the heaviest path through the user's code; None if it was not sampled."""
    inside = [(tuple(line for line in stack.lines if not line.is_library), stack.wall_ns) for stack in stacks]
    depth, here = 0, None
    while True:
        through: dict[Line | None, int] = {}
        for lines, ns in inside:
            line = lines[depth] if len(lines) > depth else None
            through[line] = through.get(line, 0) + ns
        line = max(through, key=through.__getitem__, default=None)
        if line is None:  # most of the time ended on the line before, or none is left
            return here
        inside = [(lines, ns) for lines, ns in inside if len(lines) > depth and lines[depth] == line]
        depth, here = depth + 1, line


def _is_host_work(lines: tuple[Line, ...]) -> bool:
    if not lines or any(_TORCH.search(line.file) for line in lines):
        return False
    return lines[-1].is_library or any(line.is_generator and not line.is_library for line in lines)


_TORCH: Final = re.compile(r"/torch/(?:nn|optim|autograd|_tensor|_ops|_dynamo|_inductor|cuda|distributed)")
"""Code of torch that stands for the accelerator's work, if that has no clock of its own."""


_LOADER: Final = re.compile(r"/torch/utils/data/|/torchdata/")
_ASKS_SAMPLER: Final = "_next_index"
"""The function of torch's iterators that asks the sampler for the indices of a batch."""


def stage_of(owner: str) -> str:
    """Return the stage in which an owner's time is sampled."""
    return _STAGES.get(owner, owner)


_STAGES: Final[Mapping[str, str]] = {
    owners.STORAGE.name: owners.READ,
    owners.GETITEM.name: owners.UNNAMED,
    owners.ITER.name: owners.STREAM,
    owners.MAIN.name: MAIN,
    owners.ACCELERATOR.name: MAIN,
}


def read_lines(run: Run) -> Lines:
    """Read and add up the table `lines` of a run, once; empty if lines were not sampled."""
    lines = _read.get(run)
    if lines is None:
        lines = _read[run] = _read_table(run)
    return lines


_read: Final[WeakKeyDictionary[Run, Lines]] = WeakKeyDictionary()
"""By each run that is open: attribution, verdict, page and exports all ask for it."""


def _read_table(run: Run) -> Lines:
    loaders = run.meta.loaders
    files = {each.file for each in loaders if each.file and not (each.in_library or _is_library(each.file))}
    return _added_up((each for _, each in _rows(run)), files=files)


class Moment(NamedTuple):
    """Activity that a thread was busiest with since the look before."""

    time_ns: int
    loader: int | None
    worker: int
    hot: HotLine


def hottest_over_time(run: Run) -> Iterator[Moment]:
    """Yield for each thread, each time that its samples were written, the line that it spent the most in."""
    by_flush: dict[tuple[int, int | None, int], list[_Row]] = {}
    for time_ns, row in _rows(run):
        by_flush.setdefault((time_ns, row.loader, row.worker), []).append(row)
    root = read_lines(run).root
    for (time_ns, loader, worker), rows in by_flush.items():
        lines = _added_up(rows, root)
        hot = next((line for owner in lines.owners()[:1] for line in lines.hot(owner)[:1]), None)
        if hot is not None:
            yield Moment(time_ns, loader, worker, hot)


class _Row(NamedTuple):
    stage: str
    loader: int | None
    worker: int
    stack: str
    wall_ns: int
    cpu_ns: int
    samples: int


def _rows(run: Run) -> Iterator[tuple[int, _Row]]:
    names = ("time_ns", "stage", "loader", "worker", "stack", "wall_ns", "cpu_ns", "samples")
    streams = {each.id for each in run.meta.loaders if each.iterable}
    for piece in run.pieces("lines", names):
        columns = piece.to_pydict()
        for time_ns, stage, loader, worker, stack, *figures in zip(
            *(columns[name] for name in names), strict=True
        ):
            if stage is not None and stack is not None and worker is not None:
                name = owners.STREAM if stage == owners.UNNAMED and loader in streams else stage
                yield time_ns or 0, _Row(name, loader, worker, stack, *(each or 0 for each in figures))


def _added_up(rows: Iterable[_Row], root: str | None = None, files: Collection[str] = ()) -> Lines:
    totals: dict[tuple[str, int | None, int, str], list[int]] = {}
    for row in rows:
        total = totals.setdefault((row.stage, row.loader, row.worker, row.stack), [0, 0, 0])
        for place, figure in enumerate((row.wall_ns, row.cpu_ns, row.samples)):
            total[place] += figure
    parsed: dict[str, tuple[Line, ...]] = {}
    for _, _, _, text in totals:
        parsed.setdefault(text, parsed_lines(text))
    stacks = (
        Stack(stage, loader, worker, _inside(stage, parsed[text]), *total)
        for (stage, loader, worker, text), total in totals.items()
    )
    return Lines(stacks, root, files)


def _inside(stage: str, lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Return the lines below torch's fetcher, which calls the data set."""
    if stage in (MAIN, WAIT):
        return lines
    fetchers = [place for place, line in enumerate(lines) if line.file.endswith(_FETCHER)]
    return lines[fetchers[-1] + 1 :] if fetchers else lines


_FETCHER: Final = "torch/utils/data/_utils/fetch.py"


def parsed_lines(text: str) -> tuple[Line, ...]:
    """Read a recorded stack, skipping malformed lines."""
    return tuple(line for line in map(parse_line, text.split("\n")) if line is not None)


def parse_line(text: str) -> Line | None:
    """Read one line of a recorded stack, `file TAB line TAB function`; None if it is malformed."""
    file, _, rest = text.partition("\t")
    number, _, rest = rest.partition("\t")
    function, generator, _ = rest.partition("\t")
    return Line(file, int(number), function, bool(generator)) if number.isdecimal() else None
