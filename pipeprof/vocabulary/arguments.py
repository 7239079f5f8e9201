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
    "multiprocessing_context": "loader.start_method",
}
"""Key of a scenario by argument of DataLoader."""
ARGUMENT_OF: Final[Mapping[str, str]] = {
    key.removeprefix("loader."): argument for argument, key in KEY_OF.items()
}
"""Argument of DataLoader by knob: the last part of a scenario's key."""
MOST_TELEMETRY_HZ: Final = 100.0
"""Highest `telemetry_hz`: Linux counts CPU time in ticks of 10 ms, so looks more frequent see the same twice.

It stands here, because tracing a script need not load what reads scenarios: that takes 0.2 s.
"""


def key_named(word: str) -> str:
    """Return the key of a scenario for a word that may be an argument, as `loader.num_workers`."""
    return KEY_OF.get(word.removeprefix("loader."), word)


def value_text(value: object) -> str:
    """Return the value of an argument as `--set` takes it: `true`, `8`, `fork`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
