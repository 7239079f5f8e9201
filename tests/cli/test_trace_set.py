"""`trace --set`, `--steps`, `--seconds`, `--then-exit`: what is tried on a script that nobody edits."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeprof.record.added.scaling_probe import read_scaling
from pipeprof.record.reader import load
from tests.cli.test_trace_scripts import SCRIPTS, losses, trace
from tests.forked import Program, verb

MAKES = """
from torch.utils.data import DataLoader

class Own(DataLoader):
    def __init__(self, data, workers=0):
        super().__init__(data, 4, False, None, None, workers)

def main():
    train_loader = DataLoader(range(40), batch_size=4, num_workers=1, prefetch_factor=3)
    loaders = {"val": DataLoader(range(12), batch_size=4)}
    own = Own(range(8))
    for epoch in range(2):
        seen = [sum(1 for _ in each) for each in (train_loader, loaders["val"])]
        print(epoch, seen, 1 / seen[0], 1 / seen[1])
    print("last", sum(1 for _ in own))
    for each in (train_loader, loaders["val"], own):
        print(each.num_workers, each.prefetch_factor, each.persistent_workers, each.pin_memory)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def makes(tmp_path: Path) -> Path:
    (tmp_path / "makes.py").write_text(MAKES)
    return tmp_path


def test_loaders_are_made_with_other_arguments(makes: Path) -> None:
    traced = trace(
        "--set", "loader.workers=2", "--set", "val.num_workers=0", "--set", "loader.persistent_workers=true",
        "--set", "loader.worker_threads=1", "makes.py", cwd=makes,
    )  # fmt: skip
    assert traced.returncode == 0, traced.stderr
    assert traced.stdout.splitlines()[-3:] == ["2 3 True False", "0 None False False", "2 2 True False"]
    meta = load(makes / "run").meta
    loaders = {each.name: each for each in meta.loaders}
    assert set(loaders) == {"train_loader", "val", "own"}
    train = {one.argument: (one.script, one.value) for one in loaders["train_loader"].changed}
    assert train["num_workers"] == ("1", "2")
    assert (loaders["val"].workers, loaders["own"].workers) == (0, 2)
    source = MAKES.splitlines()
    assert source[(loaders["val"].line or 0) - 1].lstrip().startswith("loaders = {")
    assert "super().__init__" in source[(loaders["own"].line or 0) - 1], "there the argument stands"
    assert "Set from outside: train_loader: num_workers=2 (script: 1)" in traced.stderr
    assert "Set from outside" in (makes / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loader.num_worker=2", "did you mean num_workers?"),
        ("loader.prefetch=x", "'x' cannot be"),
        ("val.prefetch=2", "prefetch_factor=2 cannot be set without workers (the loader val at"),
        ("vall.workers=1", "has made no loader of that name\ndid you mean val?"),
    ],
)
def test_what_cannot_be_set_is_one_clear_error(setting: str, said: str, makes: Path) -> None:
    traced = trace("--set", setting, "makes.py", cwd=makes)
    assert traced.returncode == 2
    assert said in traced.stderr and "Traceback" not in traced.stderr
    assert ("0 [10, 3]" in traced.stdout) == setting.startswith("vall"), (
        "before the loop, where it can be known"
    )


def test_batches_stay_the_same(tmp_path: Path) -> None:
    script = str(SCRIPTS / "plain.py")
    plain = trace("--no-report", script, cwd=tmp_path)
    (tmp_path / "other").mkdir()
    other = trace("--set", "loader.num_workers=3", "--no-report", script, cwd=tmp_path / "other")
    assert losses(plain.stdout) == losses(other.stdout) != []
    assert load(tmp_path / "other" / "run").meta.loaders[0].workers == 3


@pytest.mark.parametrize("then_exit", [False, True])
def test_a_loop_is_ended(then_exit: bool, makes: Path) -> None:
    traced = trace("--steps", "6", *["--then-exit"] * then_exit, "--no-report", "makes.py", cwd=makes)
    assert traced.returncode == 0, traced.stderr
    assert "the loop was ended after 6 steps" in traced.stderr
    run = load(makes / "run")
    assert (run.status, run.meta.stopped, len(run.table("steps"))) == ("complete", "after 6 steps", 6)
    lines = traced.stdout.splitlines()
    if then_exit:
        assert not lines
    else:
        assert lines[:3] == ["0 [6, 1] 0.16666666666666666 1.0", "1 [1, 1] 1.0 1.0", "last 1"]


ENDLESS = """
from torch.utils.data import DataLoader
loader = DataLoader(range(40), batch_size=4, num_workers={workers}, persistent_workers={workers} > 0)
it = iter(loader)
while True:
    {body}
"""
NEXT = "next(it)"
AGAIN = """
    try:
        next(it)
    except StopIteration:
        it = iter(loader)
        next(it)
"""


@pytest.mark.parametrize(
    ("body", "workers", "options", "said"),
    [
        (NEXT, 1, ["--steps", "5", "--then-exit"], "ended after 5 steps"),
        (NEXT, 0, ["--seconds", "0.001"], "does not expect its loader to end"),
        (AGAIN, 0, ["--steps", "5"], "went on asking its loaders"),
    ],
)
def test_a_loop_without_end_is_ended(
    body: str, workers: int, options: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS.format(body=body.strip(), workers=workers))
    traced = trace(*options, "--no-report", "endless.py", cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert said in traced.stderr and "Traceback" not in traced.stderr
    assert load(tmp_path / "run").meta.stopped


def test_an_exit_needs_an_end(tmp_path: Path) -> None:
    (tmp_path / "any.py").write_text("print('ran')")
    traced = trace("--then-exit", "any.py", cwd=tmp_path)
    assert (traced.returncode, traced.stdout) == (2, "")
    assert "add --steps or --seconds" in traced.stderr


SLOW = """
import sys, time
from torch.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 60
    def __getitem__(self, index):
        time.sleep(0.036)
        return index

for batch in DataLoader(Slow(), batch_size=2, num_workers=1):
    pass
print("arguments", sys.argv[1:])
"""


def test_a_fix_ends_with_the_command_that_tries_it(tmp_path: Path) -> None:
    (tmp_path / "a script.py").write_text(SLOW)
    first = trace("--set", "loader.prefetch=3", "a script.py", "--name", "two words", cwd=tmp_path)
    shown = [line.strip() for line in first.stderr.splitlines() if line.startswith("  pipeprof trace ")]
    assert shown, first.stderr
    page = re.sub(r"</?span[^>]*>", "", (tmp_path / "run" / "report.html").read_text())
    assert f"{shown[0]}</code>".replace("'", "&#39;") in page
    words = shlex.split(shown[0])
    assert words[-3:] == ["a script.py", "--name", "two words"]
    assert "--out" not in words
    pasted = trace("--no-report", *words[2:], cwd=tmp_path / "run")
    assert pasted.returncode == 2, "it is run where the first was"
    other = tmp_path / "other"
    other.mkdir()
    pasted = trace("--no-report", *words[2:-3], str(tmp_path / words[-3]), *words[-2:], cwd=other)
    assert pasted.returncode == 0, pasted.stderr
    assert pasted.stdout.splitlines() == ["arguments ['--name', 'two words']"]
    before, after = (load(place / "run").meta.loaders[0] for place in (tmp_path, other))
    assert (before.workers, before.prefetch) == (1, 3)
    assert (after.workers, after.prefetch) != (before.workers, before.prefetch)


def test_a_fix_that_is_no_argument_is_tried(makes: Path) -> None:
    traced = trace("--try", "gc-freeze", "--try", "one-thread", "--no-report", "makes.py", cwd=makes)
    assert traced.returncode == 0, traced.stderr
    assert "pipeprof: --try gc-freeze: gc.collect() and gc.freeze() before" in traced.stderr
    assert "pipeprof: --try one-thread: it was done in workers alone" in traced.stderr
    assert [text.partition(":")[0] for text in load(makes / "run").meta.tried] == [
        "--try gc-freeze",
        "--try one-thread",
    ]
    (makes / "run" / "makes.py").write_text(MAKES)
    refused = trace("--try", "ram=nowhere", "makes.py", cwd=makes / "run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no directory" in refused.stderr


STARTS = """
import subprocess, sys
from torch.utils.data import DataLoader

if sys.argv[1:]:
    loader = DataLoader(range(40), batch_size=4)
    print("workers", loader.num_workers, "batches", sum(1 for _ in loader), flush=True)
else:
    sys.exit(subprocess.run([sys.executable, __file__, "child"]).returncode)
"""


@pytest.mark.slow
def test_what_a_launcher_starts_gets_the_arguments_too(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(STARTS)
    traced = trace("--set", "loader.workers=1", "--steps", "3", "--no-report", "starts.py", cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert "workers 1 batches 3" in traced.stdout
    meta = load(tmp_path / "run").meta
    assert (meta.stopped, meta.loaders[0].workers) == ("after 3 steps", 1)


@pytest.mark.slow
def test_the_making_of_batches_is_probed(makes: Path) -> None:
    traced = trace("--probe-scaling", "--no-report", "makes.py", cwd=makes)
    assert traced.returncode == 0, traced.stderr
    assert "a batch of train_loader takes its CPU time in one process" in traced.stderr
    probe = read_scaling(makes / "run")
    assert probe is not None and [point.processes for point in probe.points] == [1, 2, 4]
    (makes / "none.py").write_text("print('no loader')")
    traced = Program(verb("trace", "--probe-scaling", "--no-report", "none.py"), makes).finished()
    assert traced.returncode == 0 and "Traceback" not in traced.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["under_lightning", "under_accelerate", "under_transformers"])
def test_a_librarys_loaders_are_changed_and_its_results_are_not(name: str, tmp_path: Path) -> None:
    script = str(SCRIPTS / f"{name}.py")
    (tmp_path / "other").mkdir()
    plain = trace("--no-report", script, cwd=tmp_path)
    other = trace("--set", "loader.num_workers=4", "--no-report", script, cwd=tmp_path / "other")
    assert other.returncode == plain.returncode == 0, other.stderr
    assert losses(plain.stdout) == losses(other.stdout) != []
    before, after = (load(place / "run").meta.loaders for place in (tmp_path, tmp_path / "other"))
    assert {each.workers for each in before} != {4}
    assert {each.workers for each in after} == {4}


def test_a_run_has_the_name_that_it_was_given(makes: Path) -> None:
    done = Program(verb("trace", "--name", "before", "--no-report", "makes.py"), makes).finished()
    assert done.returncode == 0, done.stderr
    (directory,) = (makes / "runs").iterdir()
    assert directory.name.startswith("before-") and load(directory).meta.name == "before"
