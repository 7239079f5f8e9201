"""Reader of device profiles, which `pipeprof devices --measure` writes and `storage.profile` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import ScenarioError

PROFILE_SCHEMA: Final = 1
_REMEDY: Final = "measure one with `pipeprof devices --measure --out FILE PATH`"


def read_profile(path: Path) -> dict[str, Any]:
    """Read the profile at `path`. Raises `ScenarioError` if there is none, or one of a newer schema."""
    if path.exists() and not path.is_file():  # a FIFO would be waited for
        raise ScenarioError(f"storage profile {path}: is not a regular file", _REMEDY)
    try:
        profile = json.loads(path.read_text())
    except OSError as error:
        raise ScenarioError(f"storage profile {path}: {error.strerror}", _REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"storage profile {path} is not JSON: {error}", _REMEDY) from error
    if not isinstance(profile, dict) or not isinstance(profile.get("schema"), int) or "tiers" not in profile:
        raise ScenarioError(f"{path} is not a device profile", _REMEDY)
    if profile["schema"] > PROFILE_SCHEMA:
        raise ScenarioError(
            f"{path} was written by a newer pipeprof (schema {profile['schema']})",
            f"upgrade pipeprof: this one reads schema {PROFILE_SCHEMA}",
        )
    return profile
