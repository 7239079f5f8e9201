"""All ways of the lecture's net go down the same slope."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeprof.lesson import two_layer
from pipeprof.lesson.two_layer import NUMPY_WAY, TORCH_WAYS, TwoLayerTask
from tests.forked import Program


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine cost more than these small products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("d_in", [1000, 1024])
@pytest.mark.slow
def test_every_way_agrees_in_loss(d_in: int) -> None:
    problem = TwoLayerTask(d_in=d_in)
    reference = two_layer.run(NUMPY_WAY, problem)
    assert len(reference.losses) == 500
    assert reference.losses[-1] < reference.losses[0] * 1e-3, "it must have learned"
    for way in TORCH_WAYS:
        if way == "Module, compiled (static graph)":
            continue  # needs a C++ compiler: its own test
        outcome = two_layer.run(way, problem)
        assert outcome.losses[-1] == pytest.approx(reference.losses[-1], rel=1e-3), way


def test_a_wrong_gradient_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = TwoLayerTask(iterations=50)
    right = two_layer.run("autograd with an own Function", problem).losses[-1]
    monkeypatch.setattr(two_layer._Relu, "backward", staticmethod(lambda ctx, grad: grad))
    wrong = two_layer.run("autograd with an own Function", problem).losses[-1]
    assert wrong != pytest.approx(right, rel=1e-3)


def test_the_clock_is_handed_in() -> None:
    times = iter(range(0, 10**9, 7))
    outcome = two_layer.run("autograd", TwoLayerTask(iterations=10), clock=lambda: next(times))
    assert (outcome.first_iteration_ns, outcome.iteration_ns) == (7, 7.0)


@pytest.mark.heavy
def test_the_static_graph_agrees_with_the_dynamic_one(tmp_path: Path) -> None:
    problem = TwoLayerTask(iterations=50)

    def main() -> None:
        from torch._inductor import config

        config.compile_threads = 1  # else its process pool outlives the test
        try:
            print(two_layer.run("Module, compiled (static graph)", problem).losses[-1])
        except RuntimeError as error:
            print(f"torch.compile does not work here: {error}")

    done = Program(main, tmp_path).finished()
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("torch.compile"):
        pytest.skip(done.stdout)
    assert float(done.stdout) == pytest.approx(two_layer.run(NUMPY_WAY, problem).losses[-1], rel=1e-3)
