"""The registry of what is replaced: held by several, put back in any order, and left under other people's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeprof.measure.probe.patches import patch, release


def original() -> list[str]:
    return []


def ours(before: Callable[[], list[str]]) -> Callable[[], list[str]]:
    return lambda: ["ours", *before()]


def theirs(before: Callable[[], list[str]]) -> Callable[[], list[str]]:
    return lambda: ["theirs", *before()]


@pytest.fixture
def module() -> Iterator[Any]:
    yield SimpleNamespace(work=original)
    release("a")
    release("b")


def test_it_is_replaced_once_and_put_back_after_the_last_holder(module: Any) -> None:
    for holder in ("a", "b", "a"):
        patch(holder, module, "work", ours)
        assert module.work() == ["ours"]
    release("a")
    assert module.work() == ["ours"]
    release("b")
    assert module.work is original


def test_what_others_have_wrapped_stays_below_and_is_not_wrapped_again(module: Any) -> None:
    patch("a", module, "work", ours)
    module.work = theirs(module.work)
    release("a")
    assert module.work() == ["theirs", "ours"]
    patch("a", module, "work", ours)
    assert module.work() == ["theirs", "ours"]


def test_what_others_have_put_back_is_replaced_anew(module: Any) -> None:
    patch("a", module, "work", ours)
    module.work = original
    patch("a", module, "work", ours)
    assert module.work() == ["ours"]
    release("a")
    assert module.work is original


def test_an_inherited_attribute_is_inherited_again() -> None:
    class Base:
        def work(self) -> str:
            return "base"

    class Child(Base):
        pass

    patch("a", Child, "work", lambda before: lambda self: f"ours, {before(self)}")
    assert (Child().work(), Base().work()) == ("ours, base", "base")
    release("a")
    assert "work" not in vars(Child)
    assert Child().work() == "base"
