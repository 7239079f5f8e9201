"""Check of a run against what its scenario says that it teaches."""

from __future__ import annotations

from typing import Any

from pipeprof.scenario import ExpectPart
from pipeprof.units import percent
from pipeprof.vocabulary.bands import label_of


def misses(expect: ExpectPart, answer: dict[str, Any]) -> list[str]:
    """List what of `expect` does not hold in an answer's dictionary, one sentence each."""
    verdict = answer["verdict"]
    missed = []
    for key in ("cause", "fix"):
        wanted = getattr(expect, key)
        if wanted and verdict[key] not in wanted:
            missed.append(f"the {key} is {verdict[key]}, expected {' or '.join(wanted)}")
    if expect.band is not None and verdict["band"] != expect.band:
        missed.append(f"the run is {label_of(verdict['band'])}, expected {label_of(expect.band)}")
    stall = verdict["stall_share"]
    bounds = (expect.min_stall, expect.max_stall)
    if stall is None and bounds != (None, None):
        missed.append("the stall was not observed")
    elif stall is not None:
        if expect.min_stall is not None and stall < expect.min_stall:
            missed.append(f"the stall is {percent(stall)}, less than {percent(expect.min_stall)}")
        if expect.max_stall is not None and stall > expect.max_stall:
            missed.append(f"the stall is {percent(stall)}, more than {percent(expect.max_stall)}")
    return missed
