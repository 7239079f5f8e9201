"""Stacks are folded into a bounded tree, and given out once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType

import numpy as np
import pytest

from pipeprof.measure.probe.sampling import call_tree
from pipeprof.measure.probe.sampling.call_tree import MOST_DEEP, ROOT, CallTree, Node, Sampled


def nothing(code: CodeType) -> bool:
    return False


def at_the_test(code: CodeType) -> bool:
    return code.co_name.startswith("test_")


def here() -> FrameType:
    return sys._getframe(1)


def outer(inner: Callable[[], FrameType]) -> FrameType:
    return inner()


def leaf() -> FrameType:
    return here()


def deep(levels: int) -> FrameType:
    return here() if levels == 0 else deep(levels - 1)


def paths(nodes: list[Node]) -> dict[int, list[str]]:
    """The functions of each node, outermost first."""
    by_number = {node.number: node for node in nodes}

    def functions(number: int) -> list[str]:
        node = by_number.get(number)
        return [] if node is None else [*functions(node.parent), node.frame.function]

    return {number: functions(number) for number in by_number}


def test_a_stack_ends_at_the_edge_and_is_folded() -> None:
    tree = CallTree(at_the_test)
    frame = outer(leaf)
    tree.add(frame, "decode", 5, 2)
    tree.add(frame, "decode", 7, 3)
    tree.add(frame, "read", 11)
    nodes, samples = tree.take()
    assert list(paths(nodes).values()) == [["outer"], ["outer", "leaf"]]
    inner = nodes[-1].number
    assert samples == [Sampled(inner, "decode", 2, 12, 5), Sampled(inner, "read", 1, 11, -1)]


def test_nodes_are_given_out_once_and_samples_as_differences() -> None:
    tree = CallTree(at_the_test)
    frame = outer(leaf)
    tree.add(frame, "decode", 5)
    first, _ = tree.take()
    tree.add(frame, "decode", 9)
    nodes, samples = tree.take()
    assert len(first) == 2
    assert nodes == []
    assert [(each.samples, each.wall_ns) for each in samples] == [(1, 9)]
    assert tree.take() == ([], [])


def test_our_own_frames_are_left_out() -> None:
    tree = CallTree(at_the_test, is_ours=lambda code: code.co_name == "outer")
    tree.add(outer(leaf), "decode", 5)
    nodes, _ = tree.take()
    assert list(paths(nodes).values()) == [["leaf"]]


def test_a_deep_stack_keeps_its_innermost_frames() -> None:
    tree = CallTree(nothing)
    tree.add(deep(3 * MOST_DEEP), "decode", 5)
    nodes, samples = tree.take()
    assert len(nodes) == MOST_DEEP
    assert len(samples) == 1


def test_a_full_tree_counts_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_tree, "MOST_NODES", 1)
    tree = CallTree(at_the_test)
    tree.add(outer(leaf), "decode", 5)
    nodes, samples = tree.take()
    assert list(paths(nodes).values()) == [["outer"]]
    assert samples[0].node == nodes[0].number


def test_no_frame_is_the_root() -> None:
    tree = CallTree(nothing)
    tree.add(None, "decode", 5)
    assert tree.take() == ([], [Sampled(ROOT, "decode", 1, 5, -1)])


def test_a_generator_is_marked() -> None:
    def numbers() -> object:
        yield here()

    tree = CallTree(at_the_test)
    tree.add(next(numbers()), "main", 5)  # type: ignore[call-overload]
    nodes, _ = tree.take()
    assert nodes[-1].frame.text.endswith("\tgenerator")


def test_a_late_sample_is_credited_to_the_line_that_made_the_call() -> None:
    """While native code runs, the frame stands on the line that called it; a sample finds it there."""
    seen: list[int] = []

    class Watched(list[int]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            frame = sys._getframe(1)
            seen.append(frame.f_lineno)
            tree.add(frame, "collate", 60)
            return super().__iter__()

    def collate() -> object:
        rows = Watched([1, 2])
        return np.fromiter(rows, np.int64)  # the line to blame

    tree = CallTree(at_the_test)
    collate()
    nodes, samples = tree.take()
    assert [node.frame.line for node in nodes] == seen == [collate.__code__.co_firstlineno + 2]
    assert samples[0].wall_ns == 60
