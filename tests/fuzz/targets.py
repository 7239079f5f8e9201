"""What is fuzzed: how a case is made, and what is asked of it."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeprof.analyse.live.run import LiveRun
from pipeprof.devices import storage_from_profile
from pipeprof.scenario.profile import read_profile
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Counted, Plan, Sampled, make_run
from tests.fuzz.harness import verb
from tests.fuzz.tables import damage_stream, damage_table
from tests.fuzz.values import HOSTILE, damage_bytes, damage_tree, damaged_json, places

Call = tuple[str, Callable[[], Any]]
ROOT: Final = Path(__file__).parent.parent.parent

STACK: Final = (("/home/me/train.py", 12, "<module>"), ("/home/me/data.py", 40, "load"))
PLANS: Final = (
    Plan(batches=40, workers=2, spans_every=20, batch_size=4, jitter=0.1),
    Plan(
        batches=30,
        workers=2,
        batch_size=4,
        spans_every=15,
        accelerator="none",
        stages={"read": 30 * MS, "decode": 60 * MS, "transform:Resize": 9 * MS, "collate": MS},
        lines=(Sampled("decode", STACK, 900 * MS, worker=0), Sampled("main", STACK[:1], 20 * MS)),
        counters=(Counted("gc.ns.2", MS), Counted("open.repeated", 50), Counted("level.threads", 3)),
    ),
    Plan(batches=26, workers=0, epochs=2, batch_size=2, spans_every=0, synchronises=True),
)


class Target(ABC):
    """Something that is read from outside. A case is made in a directory of its own."""

    name: str

    @abstractmethod
    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        """Make a case in `directory`, which is empty, and yield what is asked of it."""


class Runs(Target):
    """A run directory: `damage` says what is wrong with it."""

    def __init__(
        self, name: str, damage: tuple[str, ...], verbs: Callable[..., Iterator[Call]], made: Path
    ) -> None:
        self.name, self._damage, self._verbs = name, damage, verbs
        self._made, self._bases = made, _bases(made)
        self._tables = [
            {path.stem: pq.read_table(path) for path in sorted(base.glob("*.parquet"))}
            for base in self._bases
        ]

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        number = random.randrange(len(self._bases))
        run = directory / "run"
        shutil.copytree(self._bases[number], run, copy_function=os.link)
        if "run.json" in self._damage:
            path = run / "run.json"
            raw = json.loads(path.read_bytes())
            path.unlink()  # it is linked
            path.write_bytes(damaged_json(random, raw))
        if "tables" in self._damage:
            damage_table(random, run, self._tables[number])
        if "names" in self._damage:
            _rename(random, run)
        yield from self._verbs(random, run, self._bases[0])


def _bases(made: Path) -> list[Path]:
    """Make the runs that are damaged, once."""
    for number, plan in enumerate(PLANS):
        directory = made / f"base{number}"
        if directory.exists():
            continue
        scenario = {
            "path": "/home/me/train.yaml",
            "text": "loader:\n  workers: 2\n",
            "resolved": {"loader": {"workers": plan.workers, "batch_size": 4}, "storage": {"tier": "ssd"}},
        }
        make_run(
            directory,
            plan,
            scenario=scenario if number == 0 else None,
            warnings=["a warning"],
            overhead={"span_ns": 500, "batch_ns": 60_000, "flush_ns": 900},
            telemetry={"rate_hz": 10, "cpu_ns": MS, "gpu_uuids": {"gpu0": "GPU-1"}},
            rank=0 if number == 1 else None,
            world_size=1 if number == 1 else None,
        )
    return [made / f"base{number}" for number in range(len(PLANS))]


def _rename(random: Random, run: Path) -> None:
    """Give a run's texts names that are attacks, as far as its types allow."""
    path = run / "run.json"
    raw = json.loads(path.read_bytes())
    texts = [(inner, key) for inner, key in places(raw) if isinstance(inner[key], str)]
    for inner, key in random.sample(texts, k=min(len(texts), 8)):
        if key not in ("status", "kind"):
            inner[key] = random.choice(
                (HOSTILE, "../../outside", "/tmp/outside", "a" * 300, "\x00", "a/b", "é\u202e")
            )
    path.unlink()
    path.write_text(json.dumps(raw))


def _reading_verbs(random: Random, run: Path, good: Path) -> Iterator[Call]:
    """Ask one verb, most often the quickest that reads and analyses all."""
    name = random.choices(list(_VERBS), [share for share, _ in _VERBS.values()])[0]
    yield name, verb(_VERBS[name][1](run, good))


_VERBS: Final[dict[str, tuple[float, Callable[[Path, Path], list[str]]]]] = {
    "check": (87, lambda run, good: ["check", str(run), "--max-stall", "5%", "--min-utilization", "90%"]),
    "list": (3, lambda run, good: ["list", str(run.parent)]),
    "check --baseline": (
        2.5,
        lambda run, good: [
            *("check", str(good), "--baseline", str(run), "--max-regression", "5%", "--force"),
        ],
    ),
    "compare": (1.5, lambda run, good: ["compare", "--force", str(good), str(run)]),
    "compare --json": (1, lambda run, good: ["compare", "--force", "--json", str(run), str(good)]),
    "merge": (1, lambda run, good: ["merge", str(run), "--html", str(run / "job.html")]),
    "report --json": (0.7, lambda run, good: ["report", "--json", str(run)]),
    "report --markdown": (0.3, lambda run, good: ["report", "--markdown", str(run)]),
    "report": (0.1, lambda run, good: ["report", str(run)]),
    "report --share": (0.1, lambda run, good: ["report", "--share", str(run)]),
    "predict": (
        0.8,
        lambda run, good: ["predict", "--json", "--steps", "20", str(run), "--set", "loader.workers=3"],
    ),
    "export json": (1, lambda run, good: ["export", str(run), "--to", "json"]),
    "export perfetto": (1, lambda run, good: ["export", str(run), "--to", "perfetto"]),
}
"""By name: how often of a hundred, and the arguments for a damaged run and a good one."""


def _exports(random: Random, run: Path, good: Path) -> Iterator[Call]:
    for form in random.sample(("perfetto", "speedscope", "collapsed", "csv", "parquet", "json"), k=2):
        yield f"export {form}", verb(["export", str(run), "--to", form])
    yield "JSON of the exports", lambda: _whole_json(run)


def _whole_json(run: Path) -> None:
    for path in (*run.glob("json/*.json"), run / "speedscope.json"):
        if path.exists():
            json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


class Jobs(Target):
    """A job of two ranks, of which one has a damaged part."""

    name = "jobs"

    def __init__(self, made: Path) -> None:
        self._base = made / "job"
        if not self._base.exists():
            make_job(self._base, Job(ranks=2, steps=30))
        self._parts = sorted(self._base.glob("rank-*"))
        self._tables = [
            {path.stem: pq.read_table(path) for path in sorted(part.glob("*.parquet"))}
            for part in self._parts
        ]

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        job = directory / "job"
        shutil.copytree(self._base, job, copy_function=os.link)
        number = random.randrange(len(self._parts))
        part = job / self._parts[number].name
        if random.random() < 0.5:
            damage_table(random, part, self._tables[number])
        else:
            raw = json.loads((part / "run.json").read_bytes())
            (part / "run.json").unlink()  # it is linked
            (part / "run.json").write_bytes(damaged_json(random, raw))
        name, words = random.choice(
            (
                ("merge", ["merge", str(job), "--html", str(job / "job.html")]),
                ("report --json", ["report", "--json", str(job)]),
                ("list", ["list", str(directory)]),
            )
        )
        yield name, verb(words)


class Beside(Target):
    """Files that are kept beside a run: the fix that was chosen, the probe of its storage, its job."""

    name = "beside"

    def __init__(self, made: Path) -> None:
        self._base = _bases(made)[1]
        point = {"readers": 1, "reads": 90, "bytes_per_s": 1e8, "device_bytes_per_s": 1e8, "paused": False}
        points = [{**point, "readers": readers} for readers in (1, 2, 4)]
        probe = {"how": "whole", "request_bytes": 131_072, "files": 40, "took_s": 1.5, "cold": "direct"}
        choice = {"cause": "storage", "detail": None, "fix": "workers", "mechanism": None}
        figures = {"stall_share": 0.4, "throughput_samples_per_s": 90.0, "wall_ns": 10**9}
        self._files = {
            "storage_probe.json": {"schema": 1, **probe, "points": [*points, {**point, "paused": True}]},
            "choice.json": {"schema": 1, **choice, **figures},
            "../job.json": {"run_id": "42", "hosts": ["a"]},
        }

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        job = directory / "job"
        run = job / "rank-0"
        shutil.copytree(self._base, run, copy_function=os.link)
        for name, raw in self._files.items():
            (run / name).unlink(missing_ok=True)
            (run / name).write_bytes(damaged_json(random, deepcopy(raw)))
        name, words = random.choice(
            (
                ("check", ["check", str(run), "--max-stall", "5%"]),
                ("merge", ["merge", str(job), "--html", str(job / "job.html")]),
                ("history", ["history", str(directory)]),
                ("clean", ["clean", str(directory), "--keep-last", "0", "--yes"]),
            )
        )
        yield name, verb(words)


class Live(Target):
    """The streams of a run that is being written, as `pipeprof live` follows them."""

    name = "live"

    def __init__(self, made: Path) -> None:
        self._base = _bases(made)[1]
        self._tables = {path.stem: pq.read_table(path) for path in self._base.glob("*.parquet")}

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        raw = json.loads((self._base / "run.json").read_bytes())
        text = json.dumps({**raw, "status": "running", "pid": os.getpid(), "host": None, "boot_id": None})
        (directory / "run.json").write_text(text)
        for name, table in self._tables.items():
            with pa.ipc.new_stream(str(directory / f"{name}.arrows"), table.schema) as stream:
                stream.write_table(table, max_chunksize=7)
        for name in random.sample(sorted(self._tables), k=random.choice((1, 1, 2))):
            damage_stream(random, directory / f"{name}.arrows", self._tables[name])

        def follow() -> None:
            with closing(LiveRun(directory)) as live:
                live.poll()
                live.analyse()
                live.workers()

        yield "live", follow


class Profiles(Target):
    """A device profile, as `pipeprof devices --measure` writes it."""

    name = "profiles"

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        point = {"size_bytes": 4096, "queue_depth": 1, "reads_per_s": 9_000.0, "latency_p50_ns": 110_000}
        deeper = {**point, "queue_depth": 8, "reads_per_s": 60_000.0, "limited_by_python": True}
        entry = {
            "path": "/data",
            "tier": "ssd",
            "random": [point, deeper],
            "sequential": {"bytes_per_s": 5e8},
        }
        raw = {
            "schema": 1,
            "created_at": "2026-01-01T00:00:00",
            "machine": {},
            "tiers": [entry, {**entry, "tier": "hdd"}],
        }
        path = directory / "profile.json"
        path.write_bytes(damaged_json(random, raw))
        tier = random.choice((None, "ssd", "hdd", "ram"))
        yield "profile", lambda: storage_from_profile(read_profile(path), tier=tier)


class Scenarios(Target):
    """A scenario file, and what `--set` changes of it."""

    name = "scenarios"

    def __init__(self) -> None:
        self._files = sorted((ROOT / "scenarios").glob("*.yaml"))

    def calls(self, random: Random, directory: Path) -> Iterator[Call]:
        import yaml

        path = directory / "train.yaml"
        content = random.choice(self._files).read_bytes()
        if random.random() < 0.5:
            tree = yaml.safe_load(content)
            for _ in range(random.choice((1, 1, 2, 4))):
                if places(tree):
                    damage_tree(random, tree)
            path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
        else:
            path.write_bytes(damage_bytes(random, content))
        yield "validate", verb(["validate", str(path)])
        key = random.choice(
            ("loader.workers", "storage.tier", "matrix.loader.workers", "x", "run", "storage.path")
        )
        value = random.choice(
            ("8", "[1, 2]", "{a: 1}", "null", HOSTILE, "1e99", "[" * 400, "!!python/x y", "-1")
        )
        yield "validate --set", verb(["validate", str(path), "--set", f"{key}={value}"])


def targets(made: Path) -> dict[str, Callable[[], Target]]:
    """Return all targets by name; `made` keeps the runs that they damage."""
    return {
        "run.json": lambda: Runs("run.json", ("run.json",), _reading_verbs, made),
        "tables": lambda: Runs("tables", ("tables",), _reading_verbs, made),
        "exports": lambda: Runs("exports", ("tables", "names"), _exports, made),
        "jobs": lambda: Jobs(made),
        "beside": lambda: Beside(made),
        "live": lambda: Live(made),
        "profiles": Profiles,
        "scenarios": Scenarios,
    }
