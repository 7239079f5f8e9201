"""Damage to JSON: values that nobody expects, at any place of a tree, and damage to its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any, Final

HOSTILE: Final = "\x1b]0;owned\x07\x1b[31mred\u202e<img src=x onerror=alert(1)>&\"'"
"""Drives a terminal and a page, where it is printed raw."""


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


JUNK: Final[tuple[Callable[[], Any], ...]] = tuple(
    (lambda value=value: value)
    for value in (
        *(None, True, False, 0, -1, 1, 7, 127, 2**15, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**70),
        *(10**300, 0.5, -0.0, 1e-300, 5e-324, 1e18, 1e308, -1e308, float("nan"), float("inf"), -float("inf")),
        *(
            "",
            "x",
            "0",
            "-1",
            "nan",
            "true",
            "\x00",
            "\ud800",
            HOSTILE,
            "../../../../tmp/outside",
            "/dev/zero",
        ),
        *("{{7*7}} ${1} %s%n {0}", "2026-13-45T99:99", "2026-01-01T00:00:00", "storage:x", "transform:", ":"),
        *(
            "a" * 70_000,
            "\u2028\u2029\ufeff",
            "s3://key:secret@bucket/x",
            "-rf",
            "CON",
            "running",
            "complete",
        ),
        *([], {}, [None], [[]], [{}], {"": None}, {"a": {"b": 1}}, [True], ["x", 1, None], [HOSTILE]),
        *({"id": 0}, {"id": -1, "name": 5}, {"kind": "parallel"}, {"loader": {"workers": "x"}}),
    )
)
LARGE: Final[tuple[Callable[[], Any], ...]] = (
    lambda: _nested(40),
    lambda: _nested(600),
    lambda: list(range(20_000)),
    lambda: {str(number): number for number in range(5_000)},
    lambda: ["x"] * 40_000,
)

MOST_PLACES: Final = 100_000
"""Places of a damaged tree at the most: a case is small, what it asks of a reader need not be."""


def junk(random: Random) -> Any:
    """Return what nobody expects, made anew: the tree that it comes into is damaged further."""
    if random.random() < 0.05:
        return random.choice(LARGE)()
    return deepcopy(random.choice(JUNK)())


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Return each container of a tree with each of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        found += [(here, key) for key in keys]
        waiting += [here[key] for key in keys]
    return found


def damage_tree(random: Random, tree: Any) -> str:
    """Change one place of a tree; returns what was done."""
    container, key = random.choice(places(tree))
    old = container[key]
    match random.randrange(10):
        case 0:
            del container[key]
            return f"without {key!r}"
        case 1:
            container[key] = [old]
        case 2:
            container[key] = {"value": old}
        case 3 if isinstance(old, (int, float)) and not isinstance(old, bool):
            container[key] = old * random.choice((-1, 0, 1_000_000_007, 0.1, 1e30))
        case 4 if isinstance(old, list) and old:
            times = random.choice((2, 40, 2_000))
            if times * len(places(old)) < MOST_PLACES:
                container[key] = (old * times)[:2_000]
        case 5:
            other, there = random.choice(places(tree))
            container[key] = other[there] if isinstance(other[there], (str, int, float)) else junk(random)
        case 6 if isinstance(container, dict):
            container[random.choice(("", HOSTILE, "x" * 5_000, "schema", "\x00"))] = container.pop(key)
        case _:
            container[key] = junk(random)
    return f"{key!r} changed"


def damage_bytes(random: Random, content: bytes) -> bytes:
    """Flip, cut, repeat or insert some bytes."""
    if not content:
        return content
    for _ in range(random.choice((1, 1, 2, 5, 30))):
        at = random.randrange(len(content) + 1)
        end = min(len(content), at + random.choice((1, 2, 8, 100, 4_000)))
        match random.randrange(6):
            case 0:
                content = content[:at]
            case 1:
                content = content[:at] + content[end:]
            case 2:
                content = content[:end] + content[at:end] * random.choice((1, 3, 50)) + content[end:]
            case 3:
                content = content[:at] + random.randbytes(random.choice((1, 4, 40))) + content[at:]
            case _:
                changed = bytes(byte ^ random.choice((1, 2, 64, 128, 255)) for byte in content[at:end][:4])
                content = content[:at] + changed + content[at + len(changed) :]
    return content


def damaged_json(random: Random, tree: Any) -> bytes:
    """Return the text of a tree that was damaged in some places, and now and then in its bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        if not 0 < len(places(tree)) < MOST_PLACES:  # lists in lists that were repeated
            break
        damage_tree(random, tree)
    try:
        content = json.dumps(tree).encode()
    except RecursionError:  # nested junk within nested junk
        content = b'{"schema": 1, "x": ' + b"[" * 2_000
    match random.randrange(20):
        case 0 | 1:
            return damage_bytes(random, content)
        case 2:
            depth = random.choice((50, 5_000, 100_000))
            deep = b"[" * depth + b"]" * random.choice((depth, 0))
            return content[:-1] + b', "x": ' + deep + b"}"
        case 3:
            return (
                content[:-1]
                + b', "status": "failed", "schema": 1, "loaders": [], "pid": '
                + b"9" * 5000
                + b"}"
            )
        case _:
            return content
