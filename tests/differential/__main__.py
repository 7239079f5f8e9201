"""`python -m tests.differential`: all scripts and all kinds of loaders, in each way; some minutes.

`--scripts` or `--loaders` run one half, `--only TEXT` those with that in their name. Exit 1: some differ.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import torch

from tests.differential import run_scripts
from tests.differential.compare import differences, plain_digests
from tests.differential.kinds import KINDS
from tests.differential.observers import WAYS
from tests.differential.scripts import SCRIPTS
from tests.differential.zygote import Zygote


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--loaders", action="store_true")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the loaders")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="of observing the loaders")
    parser.add_argument("--only", default="")
    parser.add_argument("--after", default="", help="those behind the one of this name")
    parser.add_argument("--fresh", action="store_true", help="a fresh interpreter for each traced script")
    options = parser.parse_args()
    both = options.scripts == options.loaders
    print(f"Python {platform.python_version()}, torch {torch.__version__}", flush=True)
    bad = 0
    if options.loaders or both:
        bad += _loaders(_chosen(KINDS, options), options.workers, options.way or list(WAYS))
    if options.scripts or both:
        bad += _scripts(_chosen(SCRIPTS, options), options.fresh)
    return 1 if bad else 0


def _chosen(table: Iterable[str], options: argparse.Namespace) -> list[str]:
    names = list(table)
    return [
        name
        for name in names[names.index(options.after) + 1 if options.after in names else 0 :]
        if options.only in name
    ]


def _loaders(names: list[str], workers: list[int], ways: list[str]) -> int:
    expected, bad = plain_digests(names, workers), 0
    for way in ways:
        found = differences(expected, way, lambda line: print(line, flush=True))
        print(f"loaders, {way}: {len(expected)} compared, {len(found)} differ", flush=True)
        bad += len(found)
    return bad


def _scripts(names: list[str], fresh: bool) -> int:
    bad = 0
    with nullcontext() if fresh else Zygote(run_scripts.environment(Path.cwd())) as zygote:
        for name in names:
            apart = run_scripts.compared(SCRIPTS[name], zygote)
            bad += bool(apart)
            for line in apart:
                print(f"script, {name}: {line}", flush=True)
    print(f"scripts: {len(names)} compared, {bad} differ", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
