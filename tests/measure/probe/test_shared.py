"""Memory that processes share: who locks a block keeps threads out as well as processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import get_context

import pytest

from pipeprof.measure.probe.ring import Ring
from pipeprof.measure.probe.shared_memory import SharedBlock


@pytest.fixture
def blocks() -> Iterator[list[SharedBlock]]:
    made = [SharedBlock(64, "pipeprof-test") for _ in range(2)]
    yield made
    for each in made:
        each.close()


def test_a_thread_of_the_same_process_waits_for_the_lock(blocks: list[SharedBlock]) -> None:
    entered = threading.Event()

    def enter() -> None:
        with blocks[0].locked():
            entered.set()

    other = threading.Thread(target=enter)
    with blocks[0].locked():
        other.start()
        assert not entered.wait(0.05)
    other.join(10)
    assert entered.is_set()


def _lock(block: SharedBlock) -> None:
    with block.locked():
        pass


def test_a_lock_that_a_thread_held_at_the_fork_does_not_stay_locked_in_the_child(
    blocks: list[SharedBlock],
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with blocks[0].locked():
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    child = get_context("fork").Process(target=_lock, args=(blocks[1],))
    child.start()
    child.join(10)
    code = child.exitcode
    if code is None:
        child.kill()
        child.join()
    done.set()
    holder.join(10)
    child.close()
    assert code == 0


def test_a_ring_is_closed_once_whoever_closes_it() -> None:
    """The loop's thread closes one that is made while a run ends, and so does the thread that drains."""
    ring = Ring(1, 8)
    ring.close()
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        _ = ring.block.buffer  # another file may have its descriptor by now
