"""The bench's loop: when its seconds begin, and which batches are pinned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from pipeprof.measure.bench.run_display import Progress
from pipeprof.measure.bench.signals import StopRequest
from pipeprof.measure.bench.training import Loop, loader_part
from pipeprof.measure.session.session import Session
from pipeprof.record.meta import AcceleratorMeta, ModelMeta
from pipeprof.scenario import RunPart, Scenario
from tests.measure.session.loader_cases import Squares


class SlowToStart:
    """Its first step takes a minute, as a model's that is compiled in it; each other takes a second."""

    kind, emulated, pins = "cuda", False, True
    why_untimed: str | None = None

    def __init__(self) -> None:
        self.now_s = 100.0

    def submit(self, step: int, batch: Any) -> None:
        self.now_s += 1 if step else 60

    def request(self, step: int) -> None: ...

    def finished(self) -> list[Any]:
        return []

    def parts(self) -> list[Any]:
        return []

    def synchronize(self) -> None: ...

    def describe(self) -> AcceleratorMeta:
        return AcceleratorMeta()

    def describe_model(self) -> ModelMeta:
        return ModelMeta()


def test_seconds_count_from_the_end_of_the_first_step(tmp_path: Path) -> None:
    device = SlowToStart()
    with Session(tmp_path / "run", "bench", device=True) as session:
        loader: DataLoader[Any] = session.loader(Squares(40), batch_size=2)
        progress = Progress("test", None, 10.0)
        loop = Loop(session, device, progress, RunPart(seconds=10), StopRequest(), clock=lambda: device.now_s)
        loop.train(loader)
    assert session.steps.taken == 11


@pytest.mark.parametrize(
    ("tier", "pins", "asked", "pinned"),
    [
        ("pinned", True, False, True),
        ("pinned", False, False, False),
        ("ram", True, False, False),
        ("ram", True, True, True),
    ],
)
def test_what_is_in_pinned_memory_is_pinned_for_a_device(
    tier: str, pins: bool, asked: bool, pinned: bool
) -> None:
    scenario = Scenario.model_validate(
        {"name": "test", "storage": {"tier": tier}, "loader": {"pin_memory": asked}}
    )
    device: Any = SimpleNamespace(pins=pins)
    assert loader_part(scenario, device).pin_memory is pinned
    assert scenario.loader.pin_memory is asked
