"""Options that several verbs share."""

from __future__ import annotations

import click

from pipeprof.errors import ScenarioError

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the scenario, such as loader.workers=8. May stand several times.",
)
"""`--set`, handed to the command as `overrides: tuple[str, ...]`."""

set_rank_option = click.option(
    "--set-rank",
    "rank_overrides",
    metavar="RANK:KEY=VALUE",
    multiple=True,
    help="Override a key for one rank of a job under torchrun, such as 2:storage.tier=hdd.",
)
"""`--set-rank`, handed to the command as `rank_overrides: tuple[str, ...]`."""


def overrides_of_rank(rank_overrides: tuple[str, ...], rank: int | None) -> tuple[str, ...]:
    """What `--set-rank` says to `rank`, as `--set` would. Raises `ScenarioError` where it cannot be meant."""
    mine = []
    for text in rank_overrides:
        number, colon, override = text.partition(":")
        if not colon or not number.isdecimal():
            raise ScenarioError(f"--set-rank {text}: no rank", "write it as 2:storage.tier=hdd")
        if rank is None:
            raise ScenarioError(f"--set-rank {text}: there are no ranks here", "start pipeprof with torchrun")
        if int(number) == rank:
            mine.append(override)
    return tuple(mine)
