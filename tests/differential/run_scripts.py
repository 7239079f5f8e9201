"""Runs a script under python and under `pipeprof trace -q`, each in an interpreter of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.differential.scripts import Script
from tests.differential.zygote import Zygote

MOST_S: Final = 180
_FETCHER: Final = re.compile(
    r'^  File "[^"]*/torch/utils/data/_utils/fetch\.py".*\n(?:    .*\n)*', re.MULTILINE
)
"""A frame of a traceback, with the lines of source below it."""
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")
_PIDS: Final = re.compile(r"\(pid\(s\) [\d, ]+\)|(?<=\(pid=)\d+(?=\))")


class Came(NamedTuple):
    """What a program came to."""

    code: int
    out: str
    err: str


def lay_out(script: Script, directory: Path) -> list[str]:
    """Write the script and its files; returns what follows `python`."""
    for name, text in {script.name: script.text, **script.files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if script.raw is not None:
        (directory / script.name).write_bytes(script.raw)
    if script.module:
        return ["-m", script.module, *script.arguments]
    return [
        str(Path(script.name).parent) if script.name.endswith("/__main__.py") else script.name,
        *script.arguments,
    ]


def by_python(script: Script, directory: Path) -> Came:
    return _run([sys.executable, *lay_out(script, directory)], script, directory)


def by_trace(script: Script, directory: Path, out: Path, zygote: Zygote | None = None) -> Came:
    """Run it under `trace`, in a child of `zygote`, or else in a fresh interpreter, which takes seconds."""
    ours = ["trace", "-q", "--no-report", "--out", str(out), *lay_out(script, directory)]
    if zygote is None:
        return _run([sys.executable, "-m", "pipeprof", *ours], script, directory)
    files = {name: out.with_name(name) for name in ("stdin", "stdout", "stderr")}
    files["stdin"].write_text(script.stdin)
    code = zygote.run(
        argv=ours,
        cwd=str(directory),
        environment=environment(directory),
        **{name: str(path) for name, path in files.items()},
    )
    return Came(code, *(plain(files[name].read_text(errors="replace")) for name in ("stdout", "stderr")))


def environment(directory: Path) -> dict[str, str]:
    """Return an environment in which two runs can be compared; pipeprof is found as in this process."""
    root = str(Path(__file__).parent.parent.parent)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONHASHSEED": "0", "PWD": str(directory), "PYTHONPATH": root}


def _run(command: Sequence[str], script: Script, directory: Path) -> Came:
    found = subprocess.run(
        command,
        input=script.stdin.encode(),
        capture_output=True,
        cwd=directory,
        env=environment(directory),
        timeout=MOST_S,
        check=False,
    )
    return Came(
        found.returncode, *(plain(each.decode(errors="replace")) for each in (found.stdout, found.stderr))
    )


def plain(text: str) -> str:
    """Return a text without what differs from run to run, and without torch's fetcher.

    It asks a data set for a whole batch where that can be asked so, as ours can, else for each sample.
    """
    return _FETCHER.sub("", _PIDS.sub("", _ADDRESS.sub("0x", text)))


def differences(script: Script, expected: Came, got: Came) -> list[str]:
    """Return how the two came to differ."""
    if script.unlike:
        return [] if got.code else ["exit code 0"]
    return [
        f"{name}: {mine!r} instead of {theirs!r}"
        for name, theirs, mine in zip(Came._fields, expected, got, strict=True)
        if theirs != mine
    ]


def compared(script: Script, zygote: Zygote | None) -> list[str]:
    """Run a script in both ways, in a directory of its own, and return how they came to differ."""
    with tempfile.TemporaryDirectory() as made:
        here = Path(made).resolve() / "here"
        here.mkdir()
        expected = by_python(script, here)
        return differences(script, expected, by_trace(script, here, Path(made).resolve() / "run", zygote))
