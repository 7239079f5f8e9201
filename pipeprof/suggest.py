"""Suggestions for someone who wrote a word that is not one of those known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], where: str = "") -> str:
    """Return `did you mean X? (allowed: ...)`, without its first half if no known word is near.

    `where` follows "allowed", such as ` in loader`.
    """
    words = sorted(known)
    lower = {each.lower(): each for each in words}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    listed = f"allowed{where}: {', '.join(words) or 'nothing'}"
    return f"did you mean {lower[near[0]]}? ({listed})" if near else listed
