"""What to say to someone who wrote a word that is not one of those allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, allowed: Iterable[str], where: str = "") -> str:
    """`did you mean X? Allowed: ...`, the first half only where some word is near."""
    words = sorted(allowed)
    lower = {each.lower(): each for each in words}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    listed = f"allowed{where}: {', '.join(words)}"
    return f"did you mean {lower[near[0]]}? ({listed})" if near else listed
