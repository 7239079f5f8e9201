"""Knobs of a loader: what a scenario and a prediction call each, and the argument of torch's DataLoader."""

from __future__ import annotations

from typing import Final

ARGUMENT_OF: Final = {
    "workers": "num_workers",
    "prefetch": "prefetch_factor",
    "in_order": "in_order",
    "pin_memory": "pin_memory",
    "persistent_workers": "persistent_workers",
    "start_method": "multiprocessing_context",
}
"""Argument of DataLoader by knob. A scenario says `loader.<knob>`."""
_KNOB_OF: Final = {argument: knob for knob, argument in ARGUMENT_OF.items()}


def scenario_key(argument: str) -> str | None:
    """Return the key of a scenario that sets an argument of DataLoader; None where none does."""
    knob = _KNOB_OF.get(argument)
    return None if knob is None else f"loader.{knob}"
