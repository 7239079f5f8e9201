"""Device profiles: what `pipeprof devices --measure` found, as a JSON file with a schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import ScenarioError
from pipeprof.trace import write_atomically

PROFILE_SCHEMA: Final = 1
_REMEDY: Final = "measure one with `pipeprof devices --measure --out FILE PATH`"


def read_profile(path: Path) -> dict[str, Any]:
    """The profile at `path`. Raises `ScenarioError` where there is none, or one of a newer schema."""
    try:
        profile = json.loads(path.read_text())
    except OSError as error:
        raise ScenarioError(f"storage profile {path}: {error.strerror}", _REMEDY) from error
    except ValueError as error:
        raise ScenarioError(f"storage profile {path} is no JSON: {error}", _REMEDY) from error
    if not isinstance(profile, dict) or not isinstance(profile.get("schema"), int) or "tiers" not in profile:
        raise ScenarioError(f"{path} is no device profile", _REMEDY)
    if profile["schema"] > PROFILE_SCHEMA:
        raise ScenarioError(
            f"{path} was written by a newer pipeprof (schema {profile['schema']})",
            f"upgrade pipeprof: this one reads schema {PROFILE_SCHEMA}",
        )
    return profile


def check_target(path: Path) -> None:
    """Raises `ScenarioError` where a profile cannot be written to `path`: better said before measuring."""
    problem = "it is a directory" if path.is_dir() else None
    if not os.access(path.parent, os.W_OK):
        problem = (
            f"{path.parent} cannot be written" if path.parent.exists() else f"no directory {path.parent}"
        )
    if problem:
        raise ScenarioError(f"cannot write {path}: {problem}", "choose another --out")


def write_profile(path: Path, found: dict[str, Any]) -> None:
    """Write a profile, whole or not at all. Raises `ScenarioError` where it cannot be written."""
    try:
        write_atomically(path, json.dumps({"schema": PROFILE_SCHEMA, **found}, indent=1))
    except OSError as error:
        raise ScenarioError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
