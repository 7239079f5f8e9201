"""Options that several verbs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import click

from pipeprof.errors import ScenarioError


class Directory(click.Path):
    """The type of `--out`: a path that is not empty, which would mean the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Fails for an empty one, and for a URL."""
        if value == "":
            self.fail("is empty: give a directory, such as runs/mine", param, ctx)
        if "://" in str(value):
            self.fail("is a URL: give a directory; `trace` and `run` alone write to URLs", param, ctx)
        return super().convert(value, param, ctx)


class Destination(Directory):
    """The type of an `--out` that may be a URL: the directory that stands for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises `TraceError` for a URL that nothing can be sent to."""
        from pipeprof.record.remote.outgoing import stage
        from pipeprof.record.remote.places import is_url

        return stage(value) if is_url(value) else super().convert(value, param, ctx)


class PathOrUrl(click.Path):
    """The type of a directory of runs that may be a URL: the directory that stands for it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises `TraceError` for a URL at which there is no run."""
        from pipeprof.record.remote.incoming import mirror
        from pipeprof.record.remote.places import is_url

        return mirror(value) if is_url(value) else super().convert(value, param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """Seconds, from `90`, `90s`, `5m` or `1h`; at least `least`."""

    name = "time"
    _UNITS: ClassVar = {"s": 1, "m": 60, "h": 3600}

    def __init__(self, least: float) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Fails for any text that is not a time, and for less than the least."""
        text = str(value).strip()
        try:
            seconds = float(text.rstrip("smh")) * self._UNITS[text[-1:] if text[-1:] in self._UNITS else "s"]
        except ValueError:
            seconds = -1.0
        if not self._least <= seconds < float("inf"):
            self.fail(f"{value!r} is not in the range x>={self._least:g} s: give 90, 5m or 1h", param, ctx)
        return seconds


class Amount(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """Bytes, from `8GB`, `512MB` or a bare number."""

    name = "size"
    _UNITS: ClassVar = {
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KIB": 2**10,
        "MIB": 2**20,
        "GIB": 2**30,
        "B": 1,
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes. Fails for any text that is not a size above 0."""
        text = str(value).strip().upper()
        unit = next((each for each in sorted(self._UNITS, key=len, reverse=True) if text.endswith(each)), "B")
        try:
            size = float(text.removesuffix(unit)) * self._UNITS[unit]
        except ValueError:
            size = 0.0
        if not 0 < size < float("inf"):
            self.fail(f"{value!r} is not a size: give 8GB or 512MB", param, ctx)
        return round(size)


class Price(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """A price an hour, from `2.5/h` or a bare number; the currency is the user's."""

    name = "price"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the price. Fails for any other text."""
        try:
            price = float(str(value).strip().removesuffix("/h"))
        except ValueError:
            price = -1.0
        if not 0 < price < float("inf"):
            self.fail(f"{value!r} is not a price: give 2.5/h", param, ctx)
        return price


class RunName(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """The name of a run: what `find_run` can tell from a number, a path and `newest`."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Fails for a name that would mean something else."""
        text = str(value)
        if not re.fullmatch(r"[\w.-]+", text) or text.isdecimal() or text in ("newest", ".", ".."):
            self.fail(
                f"{text!r} is not a valid run name: give letters, digits, - and _, such as before", param, ctx
            )
        return text


name_option = click.option(
    "--name",
    "run_name",
    type=RunName(),
    help="Name of the run; verbs that read runs accept it in place of a path.",
)
"""`--name`, handed to the command as `run_name: str | None`."""

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only errors of pipeprof's own.")
"""`-q`, handed to the command as `quiet: bool`."""

verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print the full report, with every owner, line, doubt and warning.",
)
"""`-v`, handed to the command as `verbose: bool`."""

set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the scenario, such as loader.workers=8. Can be given several times.",
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


kernels_option = click.option(
    "--kernels",
    metavar="STEPS",
    type=click.IntRange(0, 1000),
    default=0,
    help="Trace the kernels of this many steps with torch.profiler. These steps and all earlier ones count "
    "as warm-up.",
)
"""`--kernels`, handed to the command as `kernels: int`."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the machine-readable answer and nothing else."
)
"""`--json`, handed to the command as `as_json: bool`."""

lines_option = click.option(
    "--lines/--no-lines", default=True, help="Sample which lines of code take the time (default: on)."
)
"""`--lines`, handed to the command as `lines: bool`."""

no_report_option = click.option("--no-report", is_flag=True, help="Do not write report.html.")
"""`--no-report`, handed to the command as `no_report: bool`."""


def overrides_of_rank(rank_overrides: tuple[str, ...], rank: int | None) -> tuple[str, ...]:
    """Return the `--set-rank` overrides of `rank`, as `--set` has them. Raises `ScenarioError` if invalid."""
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
