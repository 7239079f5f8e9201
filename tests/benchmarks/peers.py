"""The same loops under other profilers: each run a process of its own, plain and profiled ones in turns.

    python -m tests.benchmarks.overhead --peers [--rounds 5]

Of each loop an epoch is counted after a warm one. Printed are the ratios to the plain run beside it, median
and 95 % interval: CPU time of the script and its workers, and time by the clock, in which also shows what a
profiler stops or takes in a process of its own. Profilers that are not installed are left out; install them
in an environment of their own, in which torch is seen too.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

LOOP = str(Path(__file__).with_name("peers_loop.py"))
LOOPS = {"ram0": 3000, "ram2": 3000, "jpeg": 60}
"""Batches of an epoch."""
LIMIT_S = 300
Command = Callable[[Path, Sequence[str]], list[str]]
"""Makes the command from a scratch directory and the words behind the interpreter."""


def _own(*words: str) -> Command:
    return lambda out, loop: [
        sys.executable, "-m", "pipeprof", "trace", "--quiet", "--no-report", *words,
        "--out", str(out / "run"), *loop,
    ]  # fmt: skip


def _beside(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


PEERS: dict[str, tuple[str, Command]] = {
    "pipeprof": ("pipeprof", _own()),
    "pipeprof --no-lines": ("pipeprof", _own("--no-lines")),
    "cProfile": ("", lambda _, loop: [sys.executable, *loop, "cProfile"]),
    "torch.profiler": ("torch", lambda _, loop: [sys.executable, *loop, "torch.profiler"]),
    "py-spy": (
        "py-spy",
        lambda out, loop: [
            _beside("py-spy"), "record", "-o", str(out / "spy.svg"), "--subprocesses", "--",
            sys.executable, *loop,
        ],
    ),
    "TraceML": ("traceml-ai", lambda _, loop: [_beside("traceml"), "run", *loop[:1], "--args", *loop[1:]]),
    "gpuprof": ("gpuprof", lambda _, loop: [sys.executable, *loop, "gpuprof"]),
}  # fmt: skip
"""By name the package whose version is told, and the command."""


def main(rounds: int, loops: Sequence[str] = tuple(LOOPS), scale: float = 1.0) -> None:
    """Print a table of each loop, after the versions."""
    installed = {name: _version(package) for name, (package, _) in PEERS.items()}
    print(", ".join(f"{name} {found or 'not installed'}" for name, found in installed.items()))
    print("| loop | profiler | CPU of script and workers | by the clock |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        _make_pictures(Path(folder))
        for kind in loops:
            words = [LOOP, kind, str(max(2, round(LOOPS[kind] * scale))), folder]
            for name, (_, command) in PEERS.items():
                if installed[name]:
                    print(f"| {kind} | {name} | {_ratios(command, words, rounds)} |", flush=True)


def _ratios(command: Command, words: Sequence[str], rounds: int) -> str:
    """Run plain and profiled in turns; return both ratios as cells of the table."""
    cpu, wall = list[float](), list[float]()
    for number in range(rounds):
        pair: dict[bool, dict[str, float]] = {}
        for is_plain in (True, False) if number % 2 else (False, True):
            found = _run([sys.executable, *words] if is_plain else None, command, words)
            if isinstance(found, str):
                return f"not measured: {found} | "
            pair[is_plain] = found
        cpu.append(pair[False]["cpu_s"] / pair[True]["cpu_s"])
        wall.append(pair[False]["wall_s"] / pair[True]["wall_s"])
    return f"{_shown(cpu)} | {_shown(wall)}"


def _run(plain: list[str] | None, command: Command, words: Sequence[str]) -> dict[str, float] | str:
    """Run the loop once; return its figures, or why there are none."""
    with tempfile.TemporaryDirectory() as out:
        asked = plain or command(Path(out), words)
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, check=False, cwd=out, timeout=LIMIT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
    for line in done.stdout.splitlines():
        _, mark, figures = line.partition("peers:")
        if mark:
            return dict(json.loads(figures))
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1][:80].replace("|", "/") if said else f"exit code {done.returncode}"


def _shown(values: Sequence[float]) -> str:
    random = np.random.default_rng(0)
    medians = np.median(random.choice(values, (4000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return f"{np.median(values):.3f} [{low:.3f}, {high:.3f}]"


def _version(package: str) -> str:
    """Return the version of an installed package, of Python's own profiler that of Python; else nothing."""
    try:
        return version(package) if package else platform.python_version()
    except PackageNotFoundError:
        return ""


def _make_pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(64):
        noise = random.integers(0, 255, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg", quality=90)
