"""The one registry of what is replaced in other people's modules and classes, and of how it is put back.

Each replacement is held by name, by whoever needs it. It is put back when the last holder has released it,
unless something else has wrapped it meanwhile: ours then stays under theirs, and must do nothing by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

_ABSENT: Final = object()
"""Stands for an attribute that a class inherits, and does not have itself."""


class _Patch:
    """Attribute of a module or class that was replaced by ours."""

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self.owner, self.name = owner, name
        self.holders: set[str] = set()
        self._before = vars(owner).get(name, _ABSENT)
        original = getattr(owner, name)
        ours = wrap(original)
        if isinstance(ours, FunctionType):
            functools.update_wrapper(ours, original)
        setattr(owner, name, ours)
        self._ours = vars(owner)[name]

    def was_taken_out(self) -> bool:
        """Return whether something has put back what was there before."""
        return vars(self.owner).get(self.name, _ABSENT) is self._before

    def undo(self) -> bool:
        """Put back what was there before. False if something has wrapped ours."""
        if self.was_taken_out():
            return True
        if vars(self.owner).get(self.name) is not self._ours:
            return False
        if self._before is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self._before)
        return True


_patches: Final[dict[tuple[int, str], _Patch]] = {}
"""By the owner's identity and the attribute's name, in the order in which they were made."""


def patch(holder: str, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replace `owner.name` by `wrap(owner.name)` until `release(holder)`; once, however often asked."""
    key = id(owner), name
    known = _patches.get(key)
    if known is None or known.was_taken_out():
        known = _patches[key] = _Patch(owner, name, wrap)
    known.holders.add(holder)


def release(holder: str) -> None:
    """Give up all that `holder` has replaced; what no one else holds is put back, the last first."""
    for key, each in list(reversed(_patches.items())):
        each.holders.discard(holder)
        if not each.holders and each.undo():
            _patches.pop(key, None)
