"""`pipeprof scenarios`: list the shipped scenarios, with what each teaches."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import click

from pipeprof.cli.options import json_option
from pipeprof.cli.say import say


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the shipped scenarios by the names that `pipeprof run` accepts, with what each one teaches."""
    from pipeprof.scenario.load import load
    from pipeprof.scenario.shipped import shipped

    entries = {name: load(path) for name, path in shipped().items()}
    if as_json:
        say(json.dumps([_as_dict(name, cells) for name, cells in entries.items()], indent=2))
        return
    for name, cells in entries.items():
        runs = f" ({len(cells)} runs)" if len(cells) > 1 else ""
        say(f"{name}{runs}")
        say(textwrap.fill(cells[0].about or "", 78, initial_indent="    ", subsequent_indent="    "))


def _as_dict(name: str, cells: list[Any]) -> dict[str, Any]:
    expect = cells[0].expect
    return {
        "name": name,
        "about": cells[0].about,
        "runs": len(cells),
        "cause": None if expect is None else expect.cause,
    }
