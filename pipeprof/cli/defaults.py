"""Defaults of options from `[tool.pipeprof]` of the nearest pyproject.toml: a table for each verb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from pipeprof.cli.say import say
from pipeprof.errors import PipeprofError
from pipeprof.suggest import nearest

PYPROJECT: Final = "pyproject.toml"
_LARGEST_BYTES: Final = 1 << 20


def defaults_of(verb: str, command: click.Command, verbs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that the project here sets for a verb, by parameter.

    A key is an option as it is typed, without its dashes. Raises `PipeprofError` for a verb or an option that
    there is not.
    """
    path = _nearest(Path.cwd())
    tables = {} if path is None else _tables(path)
    for word in tables:
        if word not in verbs:
            raise PipeprofError(f"{path}: [tool.pipeprof.{word}]: no such verb", nearest(word, verbs))
    table = tables.get(verb, {})
    if not isinstance(table, dict):
        raise PipeprofError(f"{path}: tool.pipeprof.{verb} is not a table", f"write [tool.pipeprof.{verb}]")
    names = _names(command)
    for key in table:
        if key not in names:
            raise PipeprofError(f"{path}: [tool.pipeprof.{verb}] {key}: no such option", nearest(key, names))
    return {names[key]: value for key, value in table.items()}


def _nearest(directory: Path) -> Path | None:
    """Return the pyproject.toml of a directory or of the nearest one above it."""
    for each in (directory, *directory.parents):
        path = each / PYPROJECT
        if path.is_file():
            return path
    return None


def _tables(path: Path) -> dict[str, Any]:
    """Return what is below `[tool.pipeprof]`; a file that cannot be read is reported, and sets nothing."""
    import tomllib

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return {}
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["pipeprof"]
    except (KeyError, TypeError):
        return {}
    except (OSError, ValueError) as error:
        say(f"pipeprof: {path} cannot be read, and sets no defaults: {error}", err=True)
        return {}
    return tables if isinstance(tables, dict) else {}


def _names(command: click.Command) -> dict[str, str]:
    """Return each option's parameter by its spellings: of `--lines/--no-lines` the first."""
    return {
        spelling.lstrip("-"): option.name
        for option in command.params
        if isinstance(option, click.Option) and option.name
        for spelling in option.opts
        if spelling.startswith("--")
    }
