"""What an observation leaves: no circle of references, which would stay in the job until a full garbage
collection, and all that its workers had counted."""

from __future__ import annotations

import gc
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.measure.attach.control import Control
from pipeprof.measure.attach.inside import Attachment, enter_job
from pipeprof.measure.probe.spans import active
from pipeprof.record.reader import load
from tests.measure.attach import jobs


def asked(directory: Path) -> Control:
    wanted = {"steps": None, "lines": True, "telemetry_hz": 0.0, "hang_after": None, "path": None}
    return Control.make({"out": str(directory), "workers": [], **wanted})


def observe_for_a_while(directory: Path, workers: int) -> None:
    """Enter this process in the midst of a loop, and leave it again."""
    control = asked(directory)
    for step, _ in enumerate(DataLoader(jobs.Numbers(4_000), batch_size=2, num_workers=workers)):
        if step == 2:
            enter_job(str(control.directory), time.monotonic_ns())
        if step == 100:
            control.stop()
        if step > 100 and Attachment.current is None:
            break
    wait_until_left(control)
    control.remove()


def wait_until_left(control: Control) -> None:
    while control.state().get("state") != "left":
        time.sleep(0.01)


def of_ours(garbage: list[object]) -> Counter[str]:
    """Count the objects of pipeprof's classes, and the frames of its functions."""
    kinds = [type(each) for each in garbage]
    objects = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
    frames = [each.f_code for each in garbage if isinstance(each, FrameType)]
    ours = [code.co_qualname for code in frames if "/pipeprof/measure/" in code.co_filename]
    return Counter([*(name for name in objects if name.startswith("pipeprof")), *ours])


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_waits_for_the_garbage_collector(tmp_path: Path, workers: int) -> None:
    observe_for_a_while(tmp_path / "first", workers)  # what is made once in a process
    gc.collect()
    gc.disable()
    try:
        observe_for_a_while(tmp_path / "second", workers)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert of_ours(gc.garbage) == {}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


LATE_FROM, LATE_BATCHES = 300, 40
"""Batches until the data set changes, and batches from then on until pipeprof leaves. A worker has last sent
its lines less than a second before it changes, and the next time would be after it is left."""


class Changing(Dataset[Any]):
    """A data set whose later samples are made by another function."""

    def __len__(self) -> int:
        return 40_000

    def __getitem__(self, index: int) -> Any:
        return late() if index >= LATE_FROM else early()


def early() -> Any:
    time.sleep(0.004)
    return torch.tensor(0)


def late() -> Any:
    time.sleep(0.004)
    return torch.tensor(1)


def test_what_a_worker_did_last_is_among_its_lines(tmp_path: Path) -> None:
    control = asked(tmp_path / "run")
    enter_job(str(control.directory), time.monotonic_ns())
    late_batches = 0
    for batch in DataLoader(Changing(), batch_size=1, num_workers=1):
        late_batches += int(batch.sum())
        if late_batches == LATE_BATCHES:
            control.stop()
        if late_batches > LATE_BATCHES and Attachment.current is None:
            break
    wait_until_left(control)
    control.remove()
    stacks = load(tmp_path / "run").table("lines")["stack"].to_pylist()
    assert any(stack.splitlines()[-1].endswith("\tlate") for stack in stacks if stack)


class Leaving(Dataset[Any]):
    """A data set during one of whose samples pipeprof leaves."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if index == 20:
            self.control.stop()
            wait_until_left(self.control)
        return torch.tensor(index)


def test_a_job_that_is_left_in_the_midst_of_a_batch(tmp_path: Path) -> None:
    """The loop's thread makes its batches: its marks must go nowhere afterwards."""
    control = asked(tmp_path / "run")
    batches = []
    for batch in DataLoader(Leaving(control), batch_size=2):
        batches.append(batch.tolist())
        if len(batches) == 2:
            enter_job(str(control.directory), time.monotonic_ns())
    control.remove()
    assert batches == [[n, n + 1] for n in range(0, 40, 2)]
    assert active() is None
