"""Differences between loaders as they are and observed, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.differential.digests import digest
from tests.differential.kinds import KINDS
from tests.differential.observers import WAYS, plain

Digests = dict[tuple[str, int], list[str]]


def plain_digests(names: Iterable[str], workers: Iterable[int]) -> Digests:
    """Return the digest of each kind without anybody's watching, by kind and number of workers."""
    return {(name, number): digest(KINDS[name], plain, number) for name in names for number in workers}


def differences(
    expected: Digests, way: str, say: Callable[[str], None] = lambda _: None
) -> dict[tuple[str, int], list[str]]:
    """Return the kinds that give other digests in that way, with the lines that differ."""
    found = {}
    with WAYS[way]() as observe:
        for (name, workers), lines in expected.items():
            if apart := _apart(lines, digest(KINDS[name], observe, workers)):
                found[name, workers] = apart
                say(f"{way}: {name}, {workers} workers: {apart}")
    return found


def _apart(expected: list[str], got: list[str]) -> list[str]:
    """Return the lines that differ; empty where none does."""
    if got == expected:
        return []
    apart = [f"- {line}" for line in expected if line not in got]
    apart += [f"+ {line}" for line in got if line not in expected]
    return apart or ["other order", *expected, *got]
