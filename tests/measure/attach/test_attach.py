"""Attach to real jobs: their batches stay the same, their runs say why, and nothing of pipeprof is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from torch.utils.data import DataLoader

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.why.lines import read_lines
from pipeprof.measure.attach.attach import Attached, Wanted, attach
from pipeprof.measure.attach.control import PREFIX
from pipeprof.measure.session.session import Session
from pipeprof.vocabulary import owners
from tests.forked import Program, verb
from tests.measure.attach import jobs
from tests.timing import Timing

# By hand: each enters real processes while they compute. Seen once, and not again: a job that was gone after
# its pipeprof had been killed; it may have come to its last step, of which jobs have had more since.
pytestmark = [
    pytest.mark.usefixtures("ptrace_right"),
    pytest.mark.heavy,
    pytest.mark.usefixtures("of_any_length"),
]
LOADER_STEPS = 40
MANY = 50
ALLOCATORS_BYTES = 5e6
"""Single steps of the allocators: beside other work up to 5 MB were seen, and none on a quiet machine.
test_freed.py looks for what is left behind."""


def jpegs(directory: Path, workers: int = 2, **arguments: object) -> list[DataLoader[object]]:
    data = jobs.Jpegs(directory)
    return [DataLoader(data, batch_size=8, shuffle=True, num_workers=workers, **arguments)]  # type: ignore[arg-type]


def attached(pid: int, out: Path, steps: int = LOADER_STEPS, **wanted: object) -> Attached:
    return attach(pid, Wanted(out, seconds=60.0, steps=steps, **wanted))  # type: ignore[arg-type]


def traced(loaders: list[DataLoader[object]], out: Path) -> Analysis:
    with Session(out, "trace", lines=True) as session:
        for loader in loaders:
            for step, _ in enumerate(session.observe(loader)):
                if step == LOADER_STEPS:
                    break
    return load(out)


def assert_exact(found: Analysis) -> None:
    assert found.ledger is not None
    wall_ns = found.ledger.window.wall_ns
    assert sum(found.ledger.ledger_ns.values()) == wall_ns
    assert sum(found.ledger.path_ns.values()) == wall_ns


def in_work(found: Analysis) -> tuple[str, list[tuple[str, int]]]:
    """The costliest work on the critical path and its hottest line: words that a busy machine leaves as they
    are."""
    assert found.ledger is not None
    work = {
        owner: ns
        for owner, ns in found.ledger.path_ns.items()
        if owners.record_of(owner).takes_name or owner in (owners.DECODE.name, owners.COLLATE.name)
    }
    costliest = max(work, key=work.__getitem__)
    return costliest, [(line.path, line.line) for line in read_lines(found.run).hot(costliest)[:1]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_a_jpeg_job_is_told_as_trace_tells_it_and_notices_nothing(
    tmp_path: Path, timing: Timing, start: str
) -> None:
    loaders = partial(jpegs, tmp_path, multiprocessing_context=start)
    jpegs(tmp_path)
    job = jobs.Job(loaders, tmp_path / "job")
    job.wait_for(3, 300.0)
    # a whole epoch is among them: a worker sends its lines once a second and when it ends
    done = attached(job.pid, tmp_path / "run", steps=2 * LOADER_STEPS)
    again = attached(job.pid, tmp_path / "again", steps=10)
    said = job.end()

    assert (done.steps >= 2 * LOADER_STEPS, done.ended, done.unseen_workers) == (True, False, 0)
    assert again.steps >= 10
    assert said["left"] == jobs.CLEAN
    steps = min(said["steps"], 60)
    assert said["digests"][:steps] == jobs.digests_alone(loaders, tmp_path / "alone", steps)

    found, whole = load(done.directory), traced(loaders(), tmp_path / "traced")
    assert_exact(found)
    assert_exact(load(again.directory))
    meta = found.run.meta
    assert (meta.kind, meta.status, meta.loaders[0].workers, meta.pid) == ("attach", "complete", 2, job.pid)
    assert meta.loaders[0].start_method == start
    made = found.run.table("batches").to_pydict()
    assert set(made["worker"]) == {0, 1}
    assert set(made["samples"]) == {8}
    assert any(time_ns is not None for time_ns in made["dispatch_ns"])
    stages = set(found.run.table("stages")["stage"].to_pylist())
    assert {"decode", "collate", "transform:RandomResizedCrop"} <= stages
    warm = found.run.table("steps")["warmup"].to_pylist()
    assert warm[0] and not warm[-1], "what was under way is not observed"
    assert in_work(found) == in_work(whole)
    if start != "fork":
        return  # a trace as short as this is mostly their start-up, which had passed before the attach
    if not any(timing.explains(v.cause, v.detail) for v in (found.verdict, whole.verdict)):
        assert told(found) == told(whole)


def told(found: Analysis) -> tuple[object, ...]:
    """Cause, mechanism and hot line of a verdict."""
    verdict = found.verdict
    return verdict.cause, verdict.detail, verdict.mechanism, [hot.line for hot in verdict.hot[:1]]


@pytest.mark.parametrize("what", ["no workers", "stream"])
def test_other_loaders(tmp_path: Path, what: str) -> None:
    def loaders() -> list[DataLoader[object]]:
        if what == "stream":
            return [DataLoader(jobs.Stream(), batch_size=4, num_workers=2)]
        return [DataLoader(jobs.Numbers(), batch_size=4)]

    job = jobs.Job(loaders, tmp_path / "job")
    job.wait_for(2)
    done = attached(job.pid, tmp_path / "run", steps=30)
    said = job.end()
    assert said["left"] == jobs.CLEAN
    assert said["digests"][:40] == jobs.digests_alone(loaders, tmp_path / "alone", 40)
    found = load(done.directory)
    assert_exact(found)
    assert found.run.table("batches").num_rows >= 15
    assert set(found.run.table("stages")["stage"].to_pylist()) >= {"getitem", "collate"}


def test_epochs_of_persistent_workers_and_new_ones(tmp_path: Path) -> None:
    def loaders() -> list[DataLoader[object]]:
        data = jobs.Numbers(40)
        return [
            DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True),
            DataLoader(jobs.Numbers(24), batch_size=4, num_workers=1),
        ]

    job = jobs.Job(loaders, tmp_path / "job")
    job.wait_for(20)
    done = attached(job.pid, tmp_path / "run", steps=50)
    job.wait_for(job.steps + 20)  # the loops go on after it
    said = job.end()
    assert said["left"] == jobs.CLEAN
    assert said["digests"][:60] == jobs.digests_alone(loaders, tmp_path / "alone", 60)
    found = load(done.directory)
    assert_exact(found)
    steps, batches = (found.run.table(name).to_pydict() for name in ("steps", "batches"))
    assert {0, 1} == set(steps["loader"])
    made = set(zip(batches["loader"], batches["epoch"], batches["seq"], strict=True))
    taken = list(zip(steps["loader"], steps["epoch"], steps["seq"], strict=True))
    assert len(made) == batches["seq"].__len__(), "each batch has a number of its own"
    late = [key for key, warm in zip(taken, steps["warmup"], strict=True) if not warm]
    assert len(late) >= 30
    assert set(late) <= made, "what came after the begin is observed whole"


def kill_pipeprof(job: jobs.Job, directory: Path, after_s: float) -> None:
    """Attach with a pipeprof of its own, and kill it."""
    directory.mkdir(parents=True)
    outside = Program(verb("attach", "--seconds", "60", "--out", "run", str(job.pid)), directory)
    time.sleep(after_s)
    outside.kill()


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.timeout(600))])
def test_a_job_outlives_pipeprof(tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = partial(jpegs, tmp_path)
    jpegs(tmp_path)
    job = jobs.Job(loaders, tmp_path / "job")
    own = tmp_path / "tmp"  # in the machine's own others' pipeprofs may be at work
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    job.wait_for(3)
    for number in range(kills):
        kill_pipeprof(job, tmp_path / str(number), 1.5 if kills == 1 else 0.05 + number * 0.11)
        assert job.program.alive, job.program.finished(5)
        job.wait_for(job.steps + 8)
    done = attached(job.pid, tmp_path / "last", steps=10)
    said = job.end()
    assert said["left"] == jobs.CLEAN
    assert done.steps >= 10
    assert said["digests"][:20] == jobs.digests_alone(loaders, tmp_path / "alone", 20)
    assert not list(own.glob(f"{PREFIX}*")), "the job removes what pipeprof has left"


def test_a_job_that_ends_meanwhile(tmp_path: Path) -> None:
    job = jobs.Job(lambda: [DataLoader(jobs.Numbers(), batch_size=4, num_workers=1)], tmp_path / "job")
    job.wait_for(2)

    def end(workers: int) -> None:
        job.wait_for(job.steps + 150)  # the record is handed to the kernel about once a second
        (job.directory / "stop").touch()

    done = attach(job.pid, Wanted(tmp_path / "run", seconds=60.0), end)
    assert done.ended
    job.end()
    assert load(done.directory).run.table("steps").num_rows >= 10


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_fifty_in_a_row_leave_no_growth(tmp_path: Path, timing: Timing) -> None:
    """In an interpreter of its own: the pages of a forked one become its own as they are touched."""
    directory = tmp_path / "job"
    directory.mkdir()
    source = (
        "from functools import partial; from pathlib import Path\n"
        "from tests.measure.attach.jobs import train\nfrom tests.measure.attach.test_attach import jpegs\n"
        f"train(partial(jpegs, Path({str(tmp_path)!r})), Path({str(directory)!r}))"
    )
    job = subprocess.Popen([sys.executable, "-c", source], cwd=Path(__file__).parents[3])
    seen = []
    try:
        while not (directory / "steps").exists():
            time.sleep(0.1)
        before = pace(job.pid, directory)
        for number in range(MANY):
            attached(job.pid, tmp_path / f"run-{number}", steps=3)
            time.sleep(0.3)
            seen.append(held(job.pid))
        after = pace(job.pid, directory)
        print(f"steps a second and CPU a step: {before} before {MANY} attaches, {after} after")
        print(f"of job and workers after 5: {seen[4]}, after {MANY}: {seen[-1]}")
        of_job = [each[0]["anonymous_bytes"] for each in seen]
        print(f"anonymous MB of the job after each: {[round(each / 1e6, 1) for each in of_job]}")
    finally:
        (directory / "stop").touch()
        job.wait(60)
    assert json.loads((directory / "result.json").read_text())["left"] == jobs.CLEAN
    with timing.compared():
        assert after[1] < before[1] * 1.1, "CPU time of a step: its wall time is the machine's"
    for early, late in zip(seen[4], seen[-1], strict=True):
        assert late["threads"] <= early["threads"]
        assert late["descriptors"] <= early["descriptors"] + 8, "tensors on their way are among them"
        assert late["maps"] <= early["maps"] + 8
        assert late["anonymous_bytes"] < early["anonymous_bytes"] + ALLOCATORS_BYTES


def pace(pid: int, directory: Path, steps: int = 1000) -> tuple[float, float]:
    """Steps a second, and CPU seconds of job and workers a step: of 50 steps they differed by a seventh."""
    taken = int((directory / "steps").read_text() or 0)
    began_s, began_cpu_s, now = time.monotonic(), cpu_s(pid), taken
    while now < taken + steps:
        time.sleep(0.1)
        now = int((directory / "steps").read_text() or now)
    took_s, took_cpu_s = time.monotonic() - began_s, cpu_s(pid) - began_cpu_s
    return round((now - taken) / took_s, 1), round(took_cpu_s / (now - taken), 5)


def cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children()))


def held(pid: int) -> list[dict[str, int]]:
    """What the job and each of its workers hold."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        {
            "descriptors": len(os.listdir(f"/proc/{each}/fd")),  # noqa: PTH208
            "threads": len(os.listdir(f"/proc/{each}/task")),  # noqa: PTH208
            "maps": len(Path(f"/proc/{each}/maps").read_text().splitlines()),
            "anonymous_bytes": anonymous(each),
        }
        for each in (str(pid), *children)
    ]


def anonymous(pid: str) -> int:
    """Bytes of memory of no file, whoever shares them.

    Private bytes are no measure: what a worker shares with its job becomes its own when a full collection, of
    Python's own accord, writes to each object.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))
