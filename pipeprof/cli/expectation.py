"""Whether a run came to what its scenario says that it teaches."""

from __future__ import annotations

from typing import Any

from pipeprof.scenario import ExpectPart


def misses(expect: ExpectPart, answer: dict[str, Any]) -> list[str]:
    """What of `expect` does not hold in an answer's dictionary (DESIGN §5), one sentence each."""
    verdict = answer["verdict"]
    found = []
    for key in ("cause", "fix"):
        wanted = getattr(expect, key)
        if wanted and verdict[key] not in wanted:
            found.append(f"the {key} is {verdict[key]}, not {' or '.join(wanted)}")
    if expect.band is not None and verdict["band"] != expect.band:
        found.append(f"the run is {_band(verdict['band'])}, not {_band(expect.band)}")
    stall = verdict["stall_share"]
    bounds = (expect.min_stall, expect.max_stall)
    if stall is None and bounds != (None, None):
        found.append("the stall was not observed")
    elif stall is not None:
        if expect.min_stall is not None and stall < expect.min_stall:
            found.append(f"the stall is {stall:.1%}, less than {expect.min_stall:.0%}")
        if expect.max_stall is not None and stall > expect.max_stall:
            found.append(f"the stall is {stall:.1%}, more than {expect.max_stall:.0%}")
    return found


def _band(band: str | None) -> str:
    return f"{band} input-bound" if band is not None else "inconclusive"
