"""Systems that are not Linux: what they lack is taken away, and loaders are observed all the same."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from pipeprof.measure.session import scratch
from pipeprof.record.reader import load
from tests.forked import Program

LACKING = (
    "register_at_fork", "memfd_create", "MFD_CLOEXEC", "sysconf", "waitid", "P_PID", "fdatasync",
    "O_CLOEXEC", "pread", "pwrite", "preadv", "major", "minor", "statvfs", "getloadavg", "posix_fadvise",
    "sched_getaffinity", "sched_setaffinity", "uname", "getuid", "geteuid", "getpgid",
)  # fmt: skip


class Read:
    """Samples that come from a file, slowly enough to be looked at."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> int:
        time.sleep(0.002)
        with Path("data").open("rb") as file:
            return len(file.read())


def unlink_as_windows(original: Any, path: Path, missing_ok: bool = False) -> None:
    if str(path) in Path("/proc/self/maps").read_text():
        raise PermissionError(13, "The process cannot access the file", str(path))
    original(path, missing_ok)


def on_windows(workers: int) -> None:
    """As far as it can be had here: without fcntl, resource and half of `os`, and mapped files stay."""
    tempfile.tempdir = str(Path.cwd())
    Path("data").write_bytes(bytes(1000))
    original = Path.unlink
    Path.unlink = lambda *rest, **named: unlink_as_windows(original, *rest, **named)  # type: ignore
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeprof"]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(("fcntl", "resource")))  # None: importing them fails
    sys.platform = "win32"
    for name in LACKING:
        delattr(os, name)
    import pipeprof

    loader = DataLoader(Read(), batch_size=2, num_workers=workers)  # type: ignore[arg-type]
    with pipeprof.profile(loader, out="run"):
        assert [batch.tolist() for batch in loader] == [[1000, 1000]] * 40
        print(loader.verdict().measured.steps)  # type: ignore[attr-defined]
    del loader


@pytest.mark.parametrize("workers", [0, 1])
def test_what_only_linux_has_is_not_observed_elsewhere(workers: int, tmp_path: Path) -> None:
    done = Program(partial(on_windows, workers), tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "40"
    run = load(tmp_path / "run")
    assert run.table("batches")["cpu_ns"].null_count == 0
    for name in ("runq_ns", "device_bytes", "major_faults"):
        assert run.table("batches")[name].null_count == 40, name
    assert any("only Linux" in what for what in run.meta.not_observed)
    assert any(row == "read" for row in run.table("stages")["stage"].to_pylist())
    if workers:
        assert not list(tmp_path.glob("pipeprof*")), "its shared memory is gone"


def test_the_dead_are_told_from_the_living_without_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows signal 0 is a Ctrl-C."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch.psutil, "pid_exists", lambda pid: pid == 11)
    for pid in (11, 12):
        (tmp_path / f"{scratch.PREFIX}{pid}-x").mkdir()
    made = scratch.new_scratch()
    assert {path.name for path in tmp_path.iterdir()} == {f"{scratch.PREFIX}11-x", made.name}
    scratch.remove_scratch(made)
