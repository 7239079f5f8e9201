"""Systems that are not Linux: what they lack is taken away, and loaders are observed all the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from pipeprof.trace import load
from tests.forked import Program

LACKING = ("register_at_fork", "memfd_create", "MFD_CLOEXEC", "sysconf", "waitid", "P_PID", "fdatasync")


def on_windows() -> None:
    """As far as it can be had here: without fcntl, resource and half of `os`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeprof"]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(("fcntl", "resource")))  # None: importing them fails
    sys.platform = "win32"
    for name in LACKING:
        delattr(os, name)
    for cls in (DataLoader, StatefulDataLoader):  # the other pipeprof may have been here
        cls._get_iterator = getattr(cls._get_iterator, "_pipeprof_original", cls._get_iterator)
    import pipeprof

    with pipeprof.profile(pipeprof.ProfiledDataLoader(list(range(64)), batch_size=2), out="run") as loader:
        assert [len(batch) for batch in loader] == [2] * 32
        print(loader.verdict()["steps"])


def test_what_only_linux_has_is_not_observed_elsewhere(tmp_path: Path) -> None:
    done = Program(on_windows, tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "32"
    run = load(tmp_path / "run")
    assert run.table("batches")["cpu_ns"].null_count == 0
    for name in ("runq_ns", "device_bytes", "major_faults"):
        assert run.table("batches")[name].null_count == 32, name
    assert any("only Linux" in what for what in run.meta["not_observed"])
