"""Do all that waits for a device, in at most 8 minutes: `python -m tests.gpu [--fake] [--only ITEM]`.

Each item runs in a process of its own with a limit of time, and leaves a result file as soon as it has ended;
`summary.md` has all of them. With `--fake` everything runs on a device that is not there, and small: what is
left to find out on the day is the physics. Exits with 1 where an item failed, took too long or missed its
bound, and with 2 where there is no device.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from tests.gpu.day import WHOLE_S, table, take, there
from tests.gpu.items import ITEMS


def main(arguments: list[str] | None = None) -> int:
    """Run the items that are asked for; print and keep what they came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--fake", action="store_true", help="on the device that is not there")
    parser.add_argument("--only", action="append", choices=[item.name for item in ITEMS], help="repeatable")
    parser.add_argument("--out", type=Path, default=Path("runs") / "gpu")
    parser.add_argument("--seconds", type=float, default=WHOLE_S, help="for all items together")
    given = parser.parse_args(arguments)
    items = [item for item in ITEMS if not given.only or item.name in given.only]
    if not given.fake and not there():
        print("torch sees no device here; --fake takes one that is not there", file=sys.stderr)
        return 2
    outcomes = take(items, given.out.resolve(), given.fake, partial(print, flush=True), given.seconds)
    print(f"\n{table(outcomes)}\nEach in its own file in {given.out}")
    return int(not all(outcome.good for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
