"""Folds stack samples of one thread into a bounded call tree, and gives out what is new since the last time.

A node is a call path down to one line. Nodes and frames have numbers and are sent once; samples are sent as
differences by node and stage. Knows neither threads nor clocks: the sampler hands it frames and durations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import CO_GENERATOR
from types import CodeType, FrameType
from typing import Final, NamedTuple

MOST_NODES: Final = 20_000
"""Nodes of one tree: 2,000 distinct stacks of ten frames that they do not share. Deeper calls are cut off."""
MOST_DEEP: Final = 64
"""Frames of one stack that are kept, counted from the innermost."""
ROOT: Final = 0
"""The node above all others."""


class Frame(NamedTuple):
    """Line of a function."""

    file: str
    line: int
    function: str
    is_generator: bool = False

    @property
    def text(self) -> str:
        """Return the line as the record has it: file, line, function, and a mark behind a generator's."""
        return f"{self.file}\t{self.line}\t{self.function}" + ("\tgenerator" if self.is_generator else "")


class Node(NamedTuple):
    """A call path: the path of `parent`, and then `frame`."""

    number: int
    parent: int
    frame: Frame


class Sampled(NamedTuple):
    """The samples of one call path in one stage since they were last taken."""

    node: int
    stage: str
    samples: int
    wall_ns: int
    cpu_ns: int
    """-1 if the thread's CPU clock was not read."""


class CallTree:
    """Counts stacks. `is_edge(code)` identifies the frames at which a walk outwards ends."""

    def __init__(
        self,
        is_edge: Callable[[CodeType], bool],
        is_ours: Callable[[CodeType], bool] = lambda code: False,
        first_number: int = 1,
    ) -> None:
        self._is_edge, self._is_ours = is_edge, is_ours
        self._kinds: dict[CodeType, int] = {}
        self._places: dict[tuple[int, CodeType, int], int] = {}
        """By parent node, code and instruction: the node. Several instructions lead to one line's node."""
        self._lines: dict[tuple[int, CodeType, int], int] = {}
        self._nodes, self._most = first_number, first_number + MOST_NODES
        self._new: list[Node] = []
        self._counts: dict[tuple[int, str], list[int]] = {}

    def add(self, frame: FrameType | None, stage: str, wall_ns: int, cpu_ns: int = -1) -> None:
        """Count one sample: the stack of `frame` stood for `wall_ns` in `stage`."""
        node = ROOT
        for each in reversed(self._stack(frame)):
            node = self._node(node, each)
        counts = self._counts.get((node, stage))
        if counts is None:
            counts = self._counts[node, stage] = [0, 0, -1]
        counts[0] += 1
        counts[1] += wall_ns
        if cpu_ns >= 0:
            counts[2] = max(counts[2], 0) + cpu_ns

    def frames(self, frame: FrameType | None) -> list[Frame]:
        """Return the lines of a stack, outermost first; nothing is counted."""
        return [_line_of(each) for each in reversed(self._stack(frame))]

    def _stack(self, frame: FrameType | None) -> list[FrameType]:
        """Return the frames from the innermost outwards, without our own, up to the edge."""
        stack: list[FrameType] = []
        kinds = self._kinds
        while frame is not None and len(stack) < MOST_DEEP:
            code = frame.f_code
            kind = kinds.get(code)
            if kind is None:
                kind = kinds[code] = 2 if self._is_edge(code) else 1 if self._is_ours(code) else 0
            if kind == 0:
                stack.append(frame)
            elif kind == 2:
                break
            frame = frame.f_back
        return stack

    def _node(self, parent: int, frame: FrameType) -> int:
        place = (parent, frame.f_code, frame.f_lasti)
        node = self._places.get(place)
        if node is None:
            node = self._add_place(place, frame)
        return node

    def _add_place(self, place: tuple[int, CodeType, int], frame: FrameType) -> int:
        parent, code, _ = place
        line = _line_of(frame).line
        node = self._lines.get((parent, code, line))
        if node is None:
            if self._nodes >= self._most:
                return parent  # what is called from here on counts as time of the caller
            node = self._lines[parent, code, line] = self._nodes
            self._nodes += 1
            self._new.append(Node(node, parent, _line_of(frame)))
        self._places[place] = node
        return node

    def take(self) -> tuple[list[Node], list[Sampled]]:
        """Return the nodes and the samples that came since the last call, and forget them."""
        new, counts = self._new, self._counts
        self._new, self._counts = [], {}
        return new, list(_sampled(counts))


def _line_of(frame: FrameType) -> Frame:
    code = frame.f_code
    generator = bool(code.co_flags & CO_GENERATOR)
    return Frame(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname, generator)


def _sampled(counts: dict[tuple[int, str], list[int]]) -> Iterator[Sampled]:
    for (node, stage), (samples, wall_ns, cpu_ns) in counts.items():
        yield Sampled(node, stage, samples, wall_ns, cpu_ns)
