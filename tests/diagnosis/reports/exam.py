"""Runs one report's script under `pipeprof trace`, reads the verdict and judges it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeprof.analyse.analysis import load
from pipeprof.simulate.forecast import Forecast
from tests.diagnosis.reports.truth import Truth

GRADES = ("right", "half", "abstained", "wrong", "forbidden")
"""From best to worst. The last two are confidently wrong."""
CONFIDENTLY_WRONG = GRADES[-2:]
PIPEPROF = [sys.executable, "-m", "pipeprof"]


@dataclass(frozen=True)
class Said:
    """The part of a verdict that is judged; what a verdict does not have is None."""

    cause: str
    detail: str | None
    mechanism: str | None
    fix: str
    stall_share: float | None
    hot: tuple[str, int] | None
    """File name and line of the first hot line."""
    advised: tuple[str, ...] = ()
    """The fixes that page and terminal tell to do, with what each is predicted to gain."""

    @classmethod
    def of(cls, verdict: dict[str, Any], advised: tuple[str, ...] = ()) -> Said:
        """Read it from the `verdict` of `pipeprof report --json`."""
        hot = next(iter(verdict.get("hot") or ()), None)
        return cls(
            verdict["cause"],
            verdict["detail"],
            verdict.get("mechanism"),
            verdict["fix"],
            verdict["stall_share"],
            (Path(hot["file"]).name, hot["line"]) if hot else None,
            advised,
        )


def graded(truth: Truth, said: Said) -> tuple[str, str]:
    """Return the grade, and which words keep it from being right."""
    if said.cause == "inconclusive" and said.mechanism not in truth.mechanisms - {None}:
        return "abstained", said.detail or ""
    spoken = [word for word in (said.cause, said.detail, said.fix, *said.advised) if word]
    if bad := [word for word in spoken if _among(word, truth.forbidden)]:
        return "forbidden", ", ".join(bad)
    if not _among(said.cause, truth.causes):
        return "wrong", f"cause {said.cause}"
    missing = [] if said.mechanism in truth.mechanisms else [f"mechanism {said.mechanism}"]
    missing += [] if _among(said.fix, truth.fixes) else [f"fix {said.fix}"]
    return ("half" if missing else "right"), ", ".join(missing)


def blamed(truth: Truth, said: Said) -> str:
    """Return whether the first hot line is one to blame: yes, no, or – where either is not told."""
    if said.hot is None or not truth.blamed:
        return "–"
    name, line = said.hot
    return "yes" if name == truth.path.name and line in truth.blamed else f"no, {name}:{line}"


def _among(word: str, patterns: frozenset[str]) -> bool:
    return any(fnmatchcase(word, pattern) for pattern in patterns)


def examine(truth: Truth, data: Path, out: Path) -> Said:
    """Run the script of `truth` with its files in `data` and its run in `out`; return what pipeprof says.

    Raises:
        subprocess.CalledProcessError: the script or pipeprof failed.
    """
    os.environ["CASES_DIR"] = str(data)
    runpy.run_path(str(truth.path)).get("prepare", lambda: None)()
    os.sync()  # the first run has just written its files
    with _disk(truth.disk_bytes_per_s, data) as entering:
        _run([*entering, *PIPEPROF, "trace", "--no-report", "--out", str(out), str(truth.path)])
    return reported(out)


def reported(out: Path) -> Said:
    """Return what pipeprof says of a run directory."""
    verdict = json.loads(_run([*PIPEPROF, "report", str(out), "--json"]))["verdict"]
    forecast = Forecast(load(out))
    return Said.of(verdict, (forecast.choice.word, *(each.fix.word for each in forecast.advice)))


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


LIMITS = {
    "/sys/fs/cgroup/blkio": ("blkio.throttle.read_bps_device", ""),
    "/sys/fs/cgroup": ("io.max", "rbps="),
}
"""Cgroup v1 and v2: where the groups are, the file that limits reading, and what stands before the figure."""
GROUP = "pipeprof-reports"


def no_disk_limit_here() -> str:
    """Return why no disk can be limited on this machine; empty where one can."""
    try:
        with _disk(1 << 30, Path.cwd()):
            return ""
    except OSError as error:
        return f"needs root and the blkio or io controller of cgroups ({error.strerror})"


@contextmanager
def _disk(bytes_per_s: int | None, data: Path) -> Iterator[list[str]]:
    """Limit reading from the disk of `data`; gives what must stand before a command that is to be limited."""
    if bytes_per_s is None:
        yield []
        return
    root = next((Path(root) for root in LIMITS if Path(root).is_dir()), Path("/sys/fs/cgroup"))
    limit, prefix = LIMITS[str(root)]
    group = root / GROUP
    group.mkdir(exist_ok=True)
    try:
        (group / limit).write_text(f"{whole_disk(data)} {prefix}{bytes_per_s}")
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def whole_disk(path: Path) -> str:
    """MAJOR:MINOR of the disk, not the partition, that holds `path`."""
    device = path.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    whole = node.parent if (node / "partition").exists() else node
    return (whole / "dev").read_text().strip()
