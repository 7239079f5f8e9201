"""An observation leaves no circle of references: it would stay in the job until a full garbage collection."""

from __future__ import annotations

import gc
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest
from torch.utils.data import DataLoader

from pipeprof.measure.attach.control import Control
from pipeprof.measure.attach.inside import Attachment, enter_job
from tests.measure.attach import jobs


def observe_for_a_while(directory: Path, workers: int) -> None:
    """Enter this process in the midst of a loop, and leave it again."""
    wanted = {"steps": None, "lines": True, "telemetry_hz": 0.0, "hang_after": None, "path": None}
    control = Control.make({"out": str(directory), "workers": [], **wanted})
    for step, _ in enumerate(DataLoader(jobs.Numbers(4_000), batch_size=2, num_workers=workers)):
        if step == 2:
            enter_job(str(control.directory), time.monotonic_ns())
        if step == 100:
            control.stop()
        if step > 100 and Attachment.current is None:
            break
    while control.state().get("state") != "left":
        time.sleep(0.01)
    control.remove()


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
