"""Device profiles: the measurements of `pipeprof devices --measure`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeprof.devices.survey import Survey
from pipeprof.errors import ScenarioError
from pipeprof.record.files import write_atomically
from pipeprof.scenario.profile import PROFILE_SCHEMA


def check_target(path: Path) -> None:
    """Raise `ScenarioError` if a profile cannot be written to `path`; called before measuring."""
    problem = "it is a directory" if path.is_dir() else None
    if not os.access(path.parent, os.W_OK):
        problem = (
            f"{path.parent} cannot be written" if path.parent.exists() else f"no directory {path.parent}"
        )
    if problem:
        raise ScenarioError(f"cannot write {path}: {problem}", "choose another --out")


def write_profile(path: Path, profile: Survey) -> None:
    """Write a profile, whole or not at all. Raises `ScenarioError` if it cannot be written."""
    try:
        write_atomically(path, json.dumps({"schema": PROFILE_SCHEMA, **profile}, indent=1))
    except OSError as error:
        raise ScenarioError(f"cannot write {path}: {error.strerror}", "choose another --out") from error
