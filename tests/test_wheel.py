"""The wheel: the same sources give the same bytes, and it carries what a user must know before installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PARTS: Final = ("pipeprof", "scenarios", "pyproject.toml", "README.md", "LICENSE", ".gitignore")


def built(home: Path, umask: int, changed_at_s: int) -> Path:
    """Build the wheel of a copy of the sources, made and changed at another time, under another umask."""
    before = os.umask(umask)
    try:
        home.mkdir()
        for name in PARTS:
            source, target = ROOT / name, home / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target, ignore=ignored, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source, target)
        for path in home.rglob("*"):
            os.utime(path, (changed_at_s, changed_at_s))
        environment = {name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"}
        done = subprocess.run(
            ["uv", "build", "--quiet", "--offline", "--wheel", "--out-dir", "dist"],
            cwd=home,
            env=environment | {"SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no uv here")
    finally:
        os.umask(before)
    if done.returncode != 0 and "hatchling" in done.stderr:
        pytest.skip("the builder, hatchling, is not in uv's cache, and is not fetched by a test")
    assert done.returncode == 0, done.stderr
    (wheel,) = (home / "dist").glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    first = built(tmp_path / "first", 0o022, 1_600_000_000)
    second = built(tmp_path / "other", 0o077, 1_650_000_000)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        told = wheel.read(metadata).decode()
    assert "## Security" in told and "- **Sent**: nothing" in told
    static = "pipeprof/report/page/static/"
    assert static + "vega.js.gz" in names and static + "vega.licenses.txt" in names
    assert "pipeprof/py.typed" in names and "pipeprof_trace.pth" in names
    assert not any(name.startswith("tests/") or "__pycache__" in name for name in names)
