"""Arguments with which a fix can be tried on the script or the scenario that was measured."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pipeprof.simulate.catalogue import PossibleFix
from pipeprof.simulate.knobs import Knobs
from pipeprof.vocabulary.arguments import ARGUMENT_OF


def loader_arguments(before: Knobs, after: Knobs) -> dict[str, Any]:
    """Return the arguments of a DataLoader that lead from one to the other; empty if others differ too."""
    changed = [each.name for each in fields(Knobs) if getattr(before, each.name) != getattr(after, each.name)]
    if not all(name in ARGUMENT_OF and name != "batch_size" for name in changed):  # which changes learning
        return {}
    return {ARGUMENT_OF[name]: getattr(after, name) for name in changed}


def scenario_keys(fix: PossibleFix) -> tuple[str, ...]:
    """Return the keys of a scenario, with their values, that carry a fix out; empty if none do."""
    return tuple(fix.keys.split())
