"""Checks a user's script with mypy, under our own strict settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def checked(script: Path, config: pytest.Config) -> str:
    """Return what mypy says of `script`; what it learns of torch is kept in pytest's cache, which saves
    30 s of CPU."""
    kept = config.cache.mkdir("mypy") if config.cache is not None else Path(os.devnull)
    options = ("--follow-imports=silent", f"--cache-dir={kept}", f"--config-file={ROOT / 'pyproject.toml'}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(script)],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    return done.stdout + done.stderr
