"""Arguments of torch's DataLoader and what scenarios call them: either name is taken for the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KEY_OF: Final[Mapping[str, str]] = {
    "num_workers": "loader.workers",
    "prefetch_factor": "loader.prefetch",
    "batch_size": "loader.batch_size",
    "in_order": "loader.in_order",
    "pin_memory": "loader.pin_memory",
    "persistent_workers": "loader.persistent_workers",
}
"""Key of a scenario by argument of DataLoader."""


def key_named(word: str) -> str:
    """Return the key of a scenario for a word that may be an argument, as `loader.num_workers`."""
    return KEY_OF.get(word.removeprefix("loader."), word)
