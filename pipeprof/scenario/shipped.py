"""The scenarios that pipeprof ships: in the installed package, or beside it in a checkout."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from pipeprof.errors import ScenarioError
from pipeprof.suggest import nearest

QUICKSTART: Final = "quickstart"
_SUFFIXES: Final = (".yaml", ".yml")


def shipped_directory() -> Path:
    """Return the directory of the shipped scenarios. Raises `ScenarioError` if it is not installed."""
    package = Path(str(resources.files("pipeprof")))
    for candidate in (package / "_scenarios", package.parent / "scenarios"):
        if candidate.is_dir():
            return candidate
    raise ScenarioError("the shipped scenarios are not installed", "install pipeprof again")


def shipped() -> dict[str, Path]:
    """Return the files of the shipped scenarios by the names that `pipeprof run` takes."""
    root = shipped_directory()
    files = sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def scenario_file(given: str | None) -> Path:
    """Return the scenario file that was asked for: a path, or the name of a shipped scenario.

    `scenarios/NAME.yaml`, as the documents have it, is the shipped one if there is no such file. Without a
    name it is the quickstart. Raises `ScenarioError` if there is no such file.
    """
    if given is None:
        given = QUICKSTART
    path = Path(given)
    if path.exists() or path.is_symlink():
        return path
    known = shipped()
    name = given.removeprefix("scenarios/")
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    if name in known:
        return known[name]
    raise ScenarioError(
        f"{given}: no such file, and no shipped scenario has that name",
        f"{nearest(name, filter(_stands_alone, known))}; `pipeprof scenarios` lists them",
    )


def _stands_alone(name: str) -> bool:
    """Return whether a scenario is not part of a course of several."""
    return "/" not in name
