"""The bench's loop: when its seconds begin, and which batches are pinned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from pipeprof.measure.live import Progress
from pipeprof.measure.session import Session
from pipeprof.measure.stop import Stop
from pipeprof.measure.training import Loop, loader_part
from pipeprof.scenario import RunPart, Scenario
from tests.measure.loader_cases import Squares


class SlowToStart:
    """Its first step takes a minute, as a model's that is compiled in it; each other takes a second."""

    kind, emulated = "cuda", False

    def __init__(self) -> None:
        self.now_s = 100.0

    def submit(self, step: int, batch: Any) -> None:
        self.now_s += 1 if step else 60

    def request(self, step: int) -> None: ...

    def finished(self) -> list[Any]:
        return []

    def synchronize(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {}


def test_seconds_count_from_the_end_of_the_first_step(tmp_path: Path) -> None:
    device = SlowToStart()
    with Session(tmp_path / "run", "bench", device=True) as session:
        loader: DataLoader[Any] = session.loader(Squares(40), batch_size=2)
        progress = Progress("test", None, 10.0)
        loop = Loop(session, device, progress, RunPart(seconds=10), Stop(), clock=lambda: device.now_s)
        loop.train(loader)
    assert session.steps_taken == 11


@pytest.mark.parametrize(
    ("tier", "kind", "asked", "pinned"),
    [
        ("pinned", "cuda", False, True),
        ("pinned", "emulated", False, False),
        ("ram", "cuda", False, False),
        ("ram", "cuda", True, True),
    ],
)
def test_what_is_in_pinned_memory_is_pinned_for_cuda(tier: str, kind: str, asked: bool, pinned: bool) -> None:
    scenario = Scenario.model_validate(
        {"name": "test", "storage": {"tier": tier}, "loader": {"pin_memory": asked}}
    )
    device: Any = SimpleNamespace(kind=kind)
    assert loader_part(scenario, device).pin_memory is pinned
    assert scenario.loader.pin_memory is asked
