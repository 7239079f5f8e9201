"""A process that has imported torch and pipeprof once, and forks for each `pipeprof` that is asked for.

It reads one JSON object a line: `argv`, `cwd`, `environment`, and the files for `stdin`, `stdout`, `stderr`;
it answers with the wait status. A child goes on to the end of this module, so that Python ends it as it ends
any program: with `atexit`, threads and all.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

WARM = (
    "torch",
    "torch.utils.data",
    "pipeprof.cli.measure.trace",
    "pipeprof.measure.session.script",
    "pipeprof.report.text.terminal",
)


class Zygote:
    """The process, from outside."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.differential.zygote"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
        self._process.stdout.close()

    def run(self, **asked: Any) -> int:
        """Run `pipeprof ARGV`; returns the exit code, negative for a signal."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))


def _serve() -> dict[str, Any]:
    """Fork for each line, and return in the child what is asked of it."""
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asked: dict[str, Any] = json.loads(line)
            return asked
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)
    sys.exit(0)


def _become(asked: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        mode = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(asked[name], mode, 0o600), descriptor)
    errors = {"stdin": "strict", "stdout": "strict", "stderr": "backslashreplace"}
    for descriptor, (name, how) in enumerate(errors.items()):
        stream: TextIO = open(  # noqa: SIM115
            descriptor, "r" if name == "stdin" else "w", encoding="utf-8", errors=how, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [str(Path(asked["cwd"]) / "pipeprof"), *asked["argv"]]
    sys.path[0] = asked["cwd"]


if __name__ == "__main__":
    _become(_serve())
    from pipeprof.cli import main

    main()
