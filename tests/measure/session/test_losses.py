"""A batch that a worker cannot make or hand over is told with its worker, its samples and the line."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pipeprof.measure.probe.counting.losses import in_handover, in_making, pack, unpack
from pipeprof.measure.probe.ring import LOSS_BYTES, Ring, Slot
from pipeprof.measure.probe.spans import COLLATE, GETITEM
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load

BAD = 9
"""A sample of the third batch, which the first of two workers makes."""


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index)


class BadRow(Rows):
    def __getitem__(self, index: int) -> Any:
        if index == BAD:
            raise ValueError("no such picture")
        return super().__getitem__(index)


class BadStream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield torch.tensor(1)
        raise ValueError("the stream broke off")


def bad_collate(samples: list[Any]) -> Any:
    if BAD in samples:
        raise ValueError("no two are alike")
    return torch.stack(samples)


def unpicklable(samples: list[Any]) -> Any:
    return [lambda: None] if BAD in samples else torch.stack(samples)


class DeadlyRow(Rows):
    def __getitem__(self, index: int) -> Any:
        if index == BAD:
            os.kill(os.getpid(), signal.SIGBUS)  # as where memory that is mapped has no room behind it
        return super().__getitem__(index)


def lost(out: Path, dataset: Any, **arguments: Any) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Events of batches that were lost, and the warnings of the run."""
    loader: DataLoader[Any] = DataLoader(dataset, 4, num_workers=2, **arguments)
    # of a worker that dies torch says so, or finds its connection broken
    with pytest.raises((RuntimeError, ValueError, ConnectionError)), Session(out) as session:
        for _ in session.observe(loader):
            pass
    gc.collect()  # torch's own error keeps its iterator, and so the workers, in a circle
    run = load(out)
    return [e for e in run.table("events").to_pylist() if e["kind"] == "batch_lost"], run.meta.warnings


def line_of(function: Callable[..., Any], text: str | None = None) -> str:
    lines, first = inspect.getsourcelines(function)
    after = 0 if text is None else next(n for n, line in enumerate(lines) if text in line)
    return f"{__file__}:{first + after} in {function.__qualname__}"


def test_a_sample_that_cannot_be_read(tmp_path: Path) -> None:
    (event,), warnings = lost(tmp_path / "run", BadRow())
    assert (event["loader"], event["epoch"], event["worker"]) == (0, 0, 0)
    told = event["detail"]
    assert told.startswith(f"loader0: worker 0 lost batch 2 of epoch 0, at sample {BAD} as its samples were")
    assert "ValueError: no such picture; at " + line_of(BadRow.__getitem__, "raise") in told
    assert "/dev/shm" not in told
    assert told in warnings


def test_samples_that_do_not_go_together(tmp_path: Path) -> None:
    (event,), _ = lost(tmp_path / "run", Rows(), collate_fn=bad_collate)
    assert "worker 0 lost batch 2 of epoch 0 (4 samples: 8, 9, 10, 11) as it was collated" in event["detail"]
    assert line_of(bad_collate, "raise") in event["detail"]


def test_a_stream_has_no_indices(tmp_path: Path) -> None:
    events, _ = lost(tmp_path / "run", BadStream())
    assert "lost batch 0 of epoch 0 (its samples have no indices) as its" in events[0]["detail"]
    assert line_of(BadStream.__iter__, "raise") in events[0]["detail"]


def test_a_batch_that_cannot_be_handed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """torch prints its queue thread's traceback, and its loop waits: here until the loader's timeout."""
    (event,), warnings = lost(tmp_path / "run", Rows(), collate_fn=unpicklable, timeout=2)
    told = event["detail"]
    assert "worker 0 lost batch 2 of epoch 0 (4 samples: 8, 9, 10, 11) as it was handed over" in told
    assert line_of(unpicklable) in told and "its line is not observed" in told
    assert told in warnings
    said = capfd.readouterr().err
    assert said.count(f"pipeprof: {told}") == 1
    assert "Traceback" in said, "torch says what it says without us"


def test_a_worker_that_dies_leaves_its_batch_behind(tmp_path: Path) -> None:
    (event,), warnings = lost(tmp_path / "run", DeadlyRow())
    assert event["worker"] == 0
    assert " ended as it made batch 2 of epoch 0; its sample and line are not observed" in event["detail"]
    assert event["detail"] in warnings
    assert "; /dev/shm had " in event["detail"] and "--shm-size" in event["detail"]


def test_a_loss_keeps_to_its_room_in_the_ring() -> None:
    def collate(samples: Any) -> None:
        raise RuntimeError("</torch_1>: No space left on device " + "x" * 5000)

    collate.__code__ = collate.__code__.replace(co_filename="/deep" * 1000, co_qualname="inner." * 500)
    with pytest.raises(RuntimeError) as caught:
        collate(None)
    made = in_making((1, 2), COLLATE, range(10**9, 10**9 + 5000), caught.value)
    handed = in_handover((1, 3), torch.arange(5), collate, caught.value)
    for loss in (made, handed):
        ring = Ring(2, 16)
        slot = Slot(ring.block, 1, 16, 1)
        assert unpack(ring.loss(1)) is None
        slot.lose(pack(loss))
        slot.lose(b"of a later one nothing is kept")
        assert (unpack(ring.loss(0)), unpack(ring.loss(1))) == (None, loss)
        slot.close()
        ring.close()
    assert made.total == 5000 and made.room is not None and handed.samples == (0, 1, 2, 3, 4)


def test_a_loss_of_other_scripts_keeps_to_its_room_too() -> None:
    place = ("\u8def" * 160, 3, "\u51fd" * 80)
    loss = in_handover((1, 3), [1], None, ValueError("\u574f" * 160))._replace(place=place, users=place)
    kept = unpack(pack(loss)[:LOSS_BYTES])
    assert kept is not None and kept.samples == (1,)
    assert kept.error and loss.error.startswith(kept.error)


class WordlessError(Exception):
    def __str__(self) -> str:
        raise KeyError("no words")


class Held:
    """Something that a failing sample holds."""


class Wordless(Rows):
    def __init__(self, error: type[Exception]) -> None:
        self.error, self.held = error, list[Any]()

    def __getitem__(self, index: int) -> Any:
        held = Held()
        self.held.append(weakref.ref(held))
        raise self.error


def first_error(out: Path, dataset: Any, **arguments: Any) -> type[BaseException] | None:
    with Session(out) as session:
        try:
            next(iter(session.observe(DataLoader(dataset, 4, **arguments))))
        except Exception as error:
            return type(error)
    return None


def test_an_error_without_words_is_the_users_own(tmp_path: Path) -> None:
    assert first_error(tmp_path / "run", Wordless(WordlessError)) is WordlessError


def test_a_caught_error_keeps_nothing(tmp_path: Path) -> None:
    """Without a collection: what a frame holds goes with the error, as it does without pipeprof."""
    dataset = Wordless(ValueError)
    gc.disable()
    try:
        assert first_error(tmp_path / "run", dataset) is ValueError
        assert [held() for held in dataset.held] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("asked", [["a", "b"], "12", b"12"])
def test_indices_that_are_no_numbers(asked: Any) -> None:
    loss = in_making((0, 0), GETITEM, asked, ValueError("x"))
    assert (loss.samples, loss.sample, loss.place) == (None, None, None)
    assert unpack(pack(loss)[:-3]) is None
