"""A disk that fails at any one write of a run: the loop goes on, it is said once, the verdict says so."""

from __future__ import annotations

import errno
import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.analyse import analysis
from pipeprof.errors import TraceError
from pipeprof.measure.session import flush
from pipeprof.measure.session.session import Session
from pipeprof.record import files, reader
from pipeprof.record.meta import RunMeta
from pipeprof.record.writer import TraceWriter
from tests.crash.failing import on_disk_that_fails
from tests.crash.faults import FailingDisk
from tests.factory import Plan, make_run
from tests.forked import Program, verb

BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
SAID = "cannot be written any more"


def a_short_run(out: Path) -> list[list[int]]:
    """Two passes, flushed in between; return the batches."""
    seen = []
    with pipeprof.profile(DataLoader(range(16), batch_size=4), out=out) as loader:
        for _ in range(2):
            seen += [batch.tolist() for batch in loader]
            loader.summary()
    return seen


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What destructors raise, which Python prints as a traceback."""
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: raised.append(one.exc_value))
    yield raised


@pytest.mark.parametrize(
    ("number", "full"),
    [
        pytest.param(errno.ENOSPC, True, id="full from there on"),
        pytest.param(errno.EIO, False, id="once", marks=pytest.mark.heavy),
    ],
)
def test_every_write_may_fail(
    number: int,
    full: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unraisable: list[Any],
) -> None:
    monkeypatch.setattr(reader, "_alive", lambda meta, directory: False)  # as after the process's end
    with FailingDisk(10**9).in_place() as whole:
        assert a_short_run(tmp_path / "whole") == 2 * BATCHES
    assert whole.writes > 20
    for nth in range(whole.writes):
        out = tmp_path / str(nth)
        capsys.readouterr()
        with FailingDisk(nth, number, full).in_place() as disk:
            if nth == 0:
                with pytest.raises(TraceError, match="cannot write"):
                    a_short_run(out)
                assert not out.exists(), "nothing is kept of a run that could not begin"
                continue
            assert a_short_run(out) == 2 * BATCHES, nth
        told = capsys.readouterr().err
        if disk.writes <= nth:  # a slow machine has flushed once more in the run that was counted
            continue
        assert told.count(SAID) == 1 and "Traceback" not in told, (nth, told)
        doubts = {doubt.name for doubt in analysis.load(out).verdict.doubts}
        assert doubts & {"record-cut", "torn"}, (nth, doubts)
    gc.collect()
    assert unraisable == []


def test_warnings_that_are_errors_or_ignored_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    import warnings

    for action in ("error", "ignore"):
        with warnings.catch_warnings(), FailingDisk(6).in_place():
            warnings.simplefilter(action)  # type: ignore[arg-type]
            assert a_short_run(tmp_path / action) == 2 * BATCHES
        assert capsys.readouterr().err.count(SAID) == 1


def test_a_copy_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pipeprof.profile(DataLoader(range(16), batch_size=4), out=tmp_path / "run") as loader:
        list(loader)
        for nth in (0, 2, 12):
            failing = FailingDisk(nth).in_place(tmp_path / "copy")
            with failing, pytest.raises(TraceError, match="cannot write"):
                loader.save(tmp_path / "copy")
            assert not (tmp_path / "copy").exists()
        assert len(reader.load(loader.save(tmp_path / "copy")).table("steps")) == 4


def test_a_directory_that_is_removed_is_told_at_the_next_flush(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.loader(range(16), batch_size=4)
        list(loader)
        session.flush()
        shutil.rmtree(tmp_path / "run")
        assert len(list(loader)) == 4
        session.flush()
        told = capsys.readouterr().err
        assert told.count(SAID) == 1 and "it was removed" in told
        assert "gone with it" in told and "kept" not in told and "space" not in told
    assert capsys.readouterr().err == "", "and not again"


def test_a_script_whose_directory_is_removed_keeps_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "removes.py").write_text(
        "import shutil, sys\nfrom torch.utils.data import DataLoader\n"
        "for batch in DataLoader(range(40), batch_size=4): pass\n"
        "shutil.rmtree('run')\nprint('done')\nsys.exit(3)\n"
    )
    traced = Program(verb("trace", "--out", "run", "removes.py"), tmp_path).finished()
    assert (traced.returncode, traced.stdout) == (3, "done\n")
    assert traced.stderr.count(SAID) == 1 and "Traceback" not in traced.stderr


def test_the_disk_of_a_program_fails_to_its_end(tmp_path: Path) -> None:
    """Its writes are counted too: `python -m tests.crash --writes` chooses one of them."""

    def main() -> None:
        gc.collect()
        for name in ("first", "second"):
            with files.open_new(tmp_path / "run" / name) as file:
                file.write(b"four")

    (tmp_path / "run").mkdir()
    done = Program(on_disk_that_fails(main, tmp_path, 1), tmp_path).finished()
    assert (tmp_path / "run" / "first").read_bytes() == b"four"
    assert (tmp_path / "run" / "second").read_bytes() == b"fo" and "No space left" in done.stderr
    assert (tmp_path / "writes").read_text() == "3", "one that was cut, and one that failed"


def test_a_page_that_cannot_be_written_keeps_no_verdict_back(tmp_path: Path) -> None:
    (tmp_path / "trains.py").write_text(
        "import time\nfrom torch.utils.data import DataLoader\n"
        "for batch in DataLoader(range(120), batch_size=4): time.sleep(0.001)\n"
    )
    (tmp_path / "run" / "report.html" / "in the way").mkdir(parents=True)
    traced = Program(verb("trace", "--out", "run", "trains.py"), tmp_path).finished()
    assert traced.returncode == 0, traced.stderr
    assert "report.html was not written" in traced.stderr
    assert "Where each step's time went" in traced.stderr


def test_killed_while_run_json_is_first_written(tmp_path: Path) -> None:
    """SIGKILL between the writing and the naming: the directory is free for the next run."""

    def main() -> None:
        import os
        import signal

        Path.hardlink_to = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        TraceWriter(tmp_path / "run", RunMeta())

    assert Program(main, tmp_path).finished().returncode == -9
    with pytest.raises(TraceError, match="holds no run"):
        reader.load(tmp_path / "run")
    listed = Program(verb("list", str(tmp_path)), tmp_path).finished()
    assert "Traceback" not in listed.stderr and "unreadable" not in listed.stdout
    TraceWriter(tmp_path / "run", RunMeta()).close("complete")
    assert reader.load(tmp_path / "run").status == "complete"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system, by its size; asked again, the same one of another size."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        options = f"remount,size={size}" if mounted else f"size={size}"
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
            )
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if done.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_at_the_start_keeps_nothing(tiny_disk: Callable[[str], Path]) -> None:
    """4 KiB hold a part of run.json, which must not stand in the way of the next try."""
    long = RunMeta(not_observed=("x" * 9000,))
    place = tiny_disk("4k")
    with pytest.raises(TraceError, match="No space left on device"):
        TraceWriter(place / "run", long)
    assert list(place.iterdir()) == []
    tiny_disk("1m")
    TraceWriter(place / "run", long).close("complete")
    assert reader.load(place / "run").status == "complete"


@pytest.mark.slow
def test_verbs_that_write_from_a_run_need_room(tiny_disk: Callable[[str], Path], tmp_path: Path) -> None:
    """One clear error, and nothing of the file."""
    make_run(tmp_path / "run", Plan(batches=120, workers=2))
    place, run = tiny_disk("4k"), str(tmp_path / "run")
    optional = [form for form in ("perfetto", "tensorboard") if find_spec(form) is not None]
    forms = (*optional, "csv", "parquet", "json")
    exports = [("export", run, "--to", form, "--out", str(place / "x")) for form in forms]
    for words in (("report", run, "--html", str(place / "r.html")), *exports):
        done = Program(verb(*words), tmp_path).finished()
        assert done.returncode == 2 and "No space left on device" in done.stderr, (words, done)
        assert "Traceback" not in done.stderr and list(place.iterdir()) == [], words


def test_the_first_flush_is_paid_before_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first rows of a process cost is paid by who makes the session, before its thread begins."""
    threads: list[str] = []
    import threading

    def warm_up() -> None:
        threads.extend(each.name for each in threading.enumerate())

    monkeypatch.setattr(flush, "warm_up", warm_up)
    with Session(tmp_path / "run"):
        pass
    assert threads and "pipeprof-flush" not in threads
