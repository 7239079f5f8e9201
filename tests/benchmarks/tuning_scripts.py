"""Does `pipeprof tune` find the best arguments for people's scripts, and in how much of a search's time?

Run by hand on a quiet machine: `python -m tests.benchmarks.tuning_scripts [--only decode]`; some four minutes
a script, nine for the remote one. Each is `user_job.py`, which knows nothing of pipeprof. By hand, that is
without pipeprof, each setting of workers and prefetch is measured for 12 s (40 s of the remote script, whose
batches take 0.4 s with one worker), or `--seconds`; `tune` gets an eighth of the time that this took. Where
it chose another setting than the best by hand, the two are measured in turns. Wanted are 5 % behind at most,
in 15 % of the time, and that the healthy script is told to stay as it is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.user_prediction import JOB, Case, limited

BOUND, SHARE, GIVEN = 0.05, 0.15, 0.12
TURNS = 2
GROUP = "pipeprof-tuning"
WORKERS, PREFETCH = (1, 2, 4, 8), (2, 4)
DELAY_S, SIZE = 0.02, 50_000


@dataclass(frozen=True)
class Script:
    """A script as its author left it."""

    case: Case
    workers: int
    """Workers that it is started with."""
    seconds: float = 12.0
    """Of each setting by hand: a hundred batches, of the slowest setting too."""


SCRIPTS = {
    "decode": Script(Case("decode", "jpeg-ram", 10), 0),
    "full disk": Script(Case("full disk", "jpeg-files", 10, reads_per_s=300), 1),
    "remote": Script(Case("remote", "remote", 10), 1, seconds=40.0),
    "python": Script(Case("python", "text", 10), 1),
    "healthy": Script(Case("healthy", "tensors", 40), 2),
}

Setting = tuple[int, int | None]
"""Workers and prefetch."""


class Answer(BaseHTTPRequestHandler):
    """A store that takes its time before each answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(DELAY_S)
        with suppress(ConnectionError):  # a script that was ended waits for no answer
            self.send_response(200)
            self.send_header("Content-Length", str(SIZE))
            self.end_headers()
            self.wfile.write(bytes(SIZE))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def _serve(port: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def store() -> Iterator[str]:
    """Run the store in a process of its own; gives its URL."""
    here, there = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


class Search:
    """One script, searched by hand and by `tune`."""

    def __init__(self, script: Script, data: Path, url: str, seconds: float) -> None:
        self.script, self.data, self.url, self.seconds = script, data, url, seconds

    def job(self, setting: Setting) -> list[str]:
        case, (workers, prefetch) = self.script.case, setting
        said = [str(JOB), case.kind, "--workers", str(workers), "--step-ms", str(case.step_ms)]
        said += ["--data", str(self.data), "--url", self.url]
        said += ["--batches", "1000000", "--seconds", str(self.seconds)]
        return [*said, *(["--prefetch", str(prefetch)] if prefetch else [])]

    def run(self, command: list[str]) -> str:
        with limited(self.script.case, self.data, GROUP) as entering:
            done = subprocess.run(
                [*entering, sys.executable, *command], capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def measured(self, setting: Setting) -> float:
        rate: float = json.loads(self.run(self.job(setting)).splitlines()[-1])["samples_per_s"]
        return rate

    def by_hand(self) -> dict[Setting, float]:
        settings: list[Setting] = [(0, None), *itertools.product(WORKERS, PREFETCH)]
        return {setting: self.measured(setting) for setting in settings}

    def tuned(self, budget_s: float, out: Path) -> dict[str, Any]:
        tune = ["-m", "pipeprof", "tune", "--json", "--budget", str(budget_s), "--out", str(out)]
        present: Setting = (self.script.workers, None)
        result: dict[str, Any] = json.loads(self.run([*tune, *self.job(present)]))
        return result


def setting_of(arguments: dict[str, Any]) -> Setting:
    """Return what was chosen. What else was chosen has no effect on these scripts."""
    workers = arguments["num_workers"]
    return (workers, arguments["prefetch_factor"]) if workers else (0, None)


def search(name: str, data: Path, url: str, seconds: float, room: Path) -> bool:
    """Print one row; True where it keeps the bounds."""
    one = Search(SCRIPTS[name], data, url, seconds)
    subprocess.run([sys.executable, *one.job((1, None)), "--prepare"], check=True)
    began = time.monotonic()
    rates = one.by_hand()
    spent = time.monotonic() - began
    best = max(rates, key=rates.__getitem__)
    began = time.monotonic()
    result = one.tuned(spent * GIVEN, room / "tune")
    took = time.monotonic() - began
    present: Setting = (one.script.workers, 2 if one.script.workers else None)
    chosen = present if result["stay"] else setting_of(result["best"])
    behind = 0.0
    if chosen != best:
        turns: dict[Setting, list[float]] = {best: [], chosen: []}
        for _, each in itertools.product(range(TURNS), turns):
            turns[each].append(one.measured(each))
        behind = 1 - mean(turns[chosen]) / mean(turns[best])
    tried = ", ".join(
        f"{trial['num_workers']}×{trial['prefetch_factor'] or 0}: "
        + (f"{trial['predicted']['value']:.0f}→" if trial["predicted"] else "")
        + f"{trial['measured']:.0f}"
        for trial in result["trials"]
    )
    print(
        f"| {name} | {present[0]} | {best[0]}×{best[1] or 0}: {rates[best]:.1f} | "
        f"{chosen[0]}×{chosen[1] or 0}{' (stays)' if result['stay'] else ''} | {behind:+.1%} | "
        f"{took:.0f} of {spent:.0f} s, {took / spent:.0%} | {tried} |",
        flush=True,
    )
    print(f"  by hand: {rates}", file=sys.stderr, flush=True)
    return behind <= BOUND and took <= SHARE * spent and (name != "healthy" or result["stay"])


def main() -> int:
    """Search for each script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, help="of each setting by hand, instead of the script's own")
    parser.add_argument("--only", choices=list(SCRIPTS), action="append")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "pipeprof-user-data")
    asked = parser.parse_args()
    asked.data.mkdir(parents=True, exist_ok=True)
    print("| script | workers | best by hand | tuned | behind | time | tried: predicted→measured |")
    print("| --- |" + " --- |" * 6, flush=True)
    good = True
    with store() as url:
        for name in asked.only or SCRIPTS:
            room = Path(tempfile.mkdtemp(prefix="pipeprof-tuning-"))
            seconds = asked.seconds or SCRIPTS[name].seconds
            good &= search(name, asked.data, url, seconds, room)
            shutil.rmtree(room)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
