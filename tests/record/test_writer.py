"""What a run directory holds from its first moment on, and what it never holds."""

from __future__ import annotations

import errno
from multiprocessing import get_context
from pathlib import Path

import pytest

from pipeprof.errors import TraceError
from pipeprof.record import files
from pipeprof.record.directories import new_directory, remove_unused
from pipeprof.record.files import create_whole
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.writer import TraceWriter

SECRET = "S3cr3tValue0123456789abcdef"


def test_no_secret_is_written(tmp_path: Path) -> None:
    command = ("train.py", f"--wandb-key={SECRET}", "--hf-token", SECRET, "--epochs", "3")
    run = TraceWriter(tmp_path / "run", RunMeta(command=command))
    run.write_meta(
        RunMeta(command=command, error=f"OSError: s3://AKIA:{SECRET}@bucket/x", warnings=(SECRET,))
    )
    text = (tmp_path / "run" / "run.json").read_text()
    assert text.count(SECRET) == 1, "a bare word is no known secret: only the planted warning stays"
    assert list(load(tmp_path / "run").meta.command or ()) == [
        "train.py",
        "--wandb-key=***",
        "--hf-token",
        "***",
        "--epochs",
        "3",
    ]


def test_a_run_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "create_whole", full)
        with pytest.raises(TraceError, match="No space left"):
            TraceWriter(tmp_path / "run", RunMeta())
    assert not (tmp_path / "run").exists()
    TraceWriter(tmp_path / "run", RunMeta())


@pytest.mark.parametrize("kind", ["a file", "a link that leads nowhere", "below a file"])
def test_what_is_no_directory_is_not_taken_for_a_run(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "a link that leads nowhere":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.write_text("mine")
    with pytest.raises(TraceError, match="is not a directory"):
        TraceWriter(out / "run" if kind == "below a file" else out, RunMeta())
    assert out.is_symlink() or out.read_text() == "mine"


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    create_whole(tmp_path / "a", "whole")
    with pytest.raises(FileExistsError):
        create_whole(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_default_directories_never_collide(tmp_path: Path) -> None:
    made = [new_directory("train", tmp_path) for _ in range(30)]
    assert len(set(made)) == 30 and all(path.is_dir() for path in made)
    (made[3] / "run.json").touch()
    remove_unused()
    assert list(tmp_path.iterdir()) == [made[3]]


def test_runs_that_begin_and_end_at_once_get_directories_of_their_own(tmp_path: Path) -> None:
    """One that ends without a record removes its own and the parent, in which others are just beginning."""
    processes, rounds = 6, 200
    context = get_context("fork")
    barrier, queue = context.Barrier(processes), context.SimpleQueue()

    def begin_often() -> None:
        kept, refused = [], []
        barrier.wait()
        for number in range(rounds):
            try:
                made = new_directory("train", tmp_path / "runs")
            except TraceError as error:
                refused.append(str(error))
                continue
            if number == rounds - 1:
                (made / "run.json").touch()
                kept.append(made)
            remove_unused()
        queue.put((kept, refused))

    children = [context.Process(target=begin_often) for _ in range(processes)]
    for child in children:
        child.start()
    told = [queue.get() for _ in children]
    for child in children:
        child.join()
    assert [refusal for _, refused in told for refusal in refused] == []
    assert sorted(path for kept, _ in told for path in kept) == sorted((tmp_path / "runs").iterdir())
    assert len(list((tmp_path / "runs").iterdir())) == processes


def test_a_parent_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """As a link to a disk that is not mounted."""
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    with pytest.raises(TraceError, match="runs is not a directory"):
        new_directory("train", tmp_path / "runs")
