"""`pipeprof clean`: delete old runs, or the data that scenarios have made; shown before it is done."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError
from pipeprof.record.remote.places import is_url, root_of
from pipeprof.redact import redact
from pipeprof.units import printable, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeprof.report.run_list import Entry

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Age(click.ParamType):  # type: ignore[type-arg] # generic in click 8.3 only
    """`30d`, `12h`, `2w`: handed over as a `timedelta`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the age."""
        match = re.fullmatch(r"(\d{1,6})([mhdw])", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not an age: give 30d, 12h or 2w", param, ctx)
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@click.command()
@click.argument("directory", default="runs", type=click.Path(path_type=Path))
@click.option("--older-than", type=Age(), help="Delete runs older than this, such as 30d.")
@click.option("--keep-last", type=click.IntRange(0), help="Delete all but this many of the newest runs.")
@click.option(
    "--cache",
    is_flag=True,
    help="Delete pipeprof's cache: data generated for scenarios, and copies of runs at URLs.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(
    directory: Path, older_than: timedelta | None, keep_last: int | None, cache: bool, yes: bool
) -> None:
    """Delete runs in DIRECTORY (default: runs/), or the cache. Lists what would go and asks first.

    With both limits, only runs past both are deleted. Only directories that hold a run are deleted.
    """
    if is_url(url := str(directory).replace(":/", "://", 1)) and not directory.exists():
        raise PipeprofError(
            f"{redact(url)} is not on this machine, and pipeprof deletes nothing elsewhere",
            "delete it with the store's own tool; copies of it here go with `pipeprof clean --cache`",
        )
    if older_than is None and keep_last is None and not cache:
        raise click.UsageError("say what may go: --older-than 30d, --keep-last 20, or --cache")
    doomed = list(_runs(directory, older_than, keep_last))
    if cache:
        doomed += [*_made_data(), *_directories(root_of("incoming"))]
    if not doomed:
        say("nothing to delete")
        return
    sizes = [_bytes_in(path) for path in doomed]
    for path, held in zip(doomed, sizes, strict=True):
        say(printable(f"{size(held):>9}  {path}"))
    whole = size(sum(sizes))
    if not yes and not click.confirm(f"Delete these, {whole}?"):
        return
    for path in doomed:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise PipeprofError(f"cannot delete {path}: {error.strerror}", "delete it yourself") from error
    say(f"deleted {whole}")


def _runs(directory: Path, older_than: timedelta | None, keep_last: int | None) -> Iterator[Path]:
    """Yield the directories of runs that are past every limit given; those still written to stay."""
    if (older_than is None and keep_last is None) or not directory.is_dir():
        return
    from pipeprof.report.run_list import entries

    known = [entry for entry in entries(directory) if entry.status not in ("running", "unreadable")]
    for position, entry in enumerate(known):
        if keep_last is not None and position < keep_last:
            continue
        if older_than is not None and not _is_older(entry, older_than):
            continue
        yield entry.directory


def _is_older(entry: Entry, than: timedelta) -> bool:
    try:
        made = datetime.fromisoformat(entry.when)
    except ValueError:
        return False
    return datetime.now(made.tzinfo) - made > than


def _made_data() -> Iterator[Path]:
    from pipeprof.measure.data.generate import users_cache

    yield from _directories(users_cache())


def _directories(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def _bytes_in(path: Path) -> int:
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
