"""What a job that is left alone may print is taken off, and nothing else."""

from __future__ import annotations

import pytest

from tests.measure.attach.jobs import without_torn_cleanups

AT = "/usr/lib/python3.11/multiprocessing/resource_tracker.py"


def complaint(leaked: int, *gone: str, names: str = "") -> str:
    """The tracker's own words, as Python 3.11 and, with names, 3.13 print them."""
    said = f"There appear to be {leaked} leaked semaphore objects to clean up at shutdown{names}"
    lines = [f"{AT}:254: UserWarning: resource_tracker: {said}", "  warnings.warn('resource_tracker: '"]
    for name in gone:
        reason = f"'{name}': [Errno 2] No such file or directory"
        lines += [
            f"{AT}:267: UserWarning: resource_tracker: {reason}",
            "  warnings.warn('resource_tracker: '",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "said",
    [
        complaint(1, "/mp-slfe9g4o"),
        complaint(2, "/mp-slfe9g4o", "/mp-mvof5rib"),
        complaint(1, "/mp-slfe9g4o", names=": {'/mp-slfe9g4o'}"),
    ],
)
def test_a_cleanup_that_was_torn_is_taken_off(said: str) -> None:
    assert without_torn_cleanups(said) == ""
    assert without_torn_cleanups(f"before\n{said}after\n") == "before\nafter\n"


@pytest.mark.parametrize("said", [complaint(1), complaint(2, "/mp-slfe9g4o"), "Traceback\n"])
def test_what_is_left_behind_is_told(said: str) -> None:
    assert without_torn_cleanups(said) == said
