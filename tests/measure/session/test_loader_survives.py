"""What a loader goes through in real programs: breaks, nesting, errors, killed workers, rebuilds, forks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pipeprof
from pipeprof import ProfiledDataLoader
from pipeprof.errors import TraceError
from pipeprof.measure.probe.spans import active
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from pipeprof.record.schema import Status
from pipeprof.record.writer import TraceWriter
from tests.measure.session import loader_cases as cases


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load(out).table(table).to_pylist()
    return found


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in rows(out, "events") if row["kind"] == kind]


@pytest.mark.parametrize("persistent", [False, True])
def test_early_break(persistent: bool, tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(), batch_size=2, num_workers=2, persistent_workers=persistent)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for epoch in range(3):
            for step, _ in enumerate(loader):
                if step == epoch:
                    break
    steps = rows(tmp_path / "run", "steps")
    assert [(row["epoch"], row["seq"]) for row in steps] == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert len(events(tmp_path / "run", "epoch_start")) == 3


def test_two_loaders_at_once_and_one_inside_the_other(tmp_path: Path) -> None:
    train = DataLoader(cases.Squares(12), batch_size=3, num_workers=2)
    check = DataLoader(cases.Squares(8), batch_size=4)
    with Session(tmp_path / "run") as session:
        session.observe(train, "train")
        session.observe(check, "check")
        pairs = [
            (flat_index(a), flat_index(b)) for a in train for b in check
        ]  # a validation loader inside the loop
        together = list(zip(train, check, strict=False))
    assert pairs == [(a, b) for a in (0, 9, 36, 81) for b in (0, 16)]
    steps = rows(tmp_path / "run", "steps")
    assert len([row for row in steps if row["loader"] == 0]) >= 4 + len(together)
    assert [row["seq"] for row in steps if row["loader"] == 1 and row["epoch"] < 4] == [0, 1] * 4
    assert [each.name for each in load(tmp_path / "run").meta.loaders] == ["train", "check"]


def flat_index(batch: Any) -> int:
    return int(batch[1][0])


def test_one_loader_iterated_twice_at_once(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(8), batch_size=2, num_workers=1)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for left, right in zip(loader, loader, strict=True):
            assert torch.equal(left[1], right[1])
    steps = rows(tmp_path / "run", "steps")
    assert sorted((row["epoch"], row["seq"]) for row in steps) == [(e, s) for e in (0, 1) for s in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", [cases.Broken, cases.BrokenStream])
def test_an_exception_is_the_same_as_without_us(dataset: Any, workers: int, tmp_path: Path) -> None:
    def error_of(loader: Any) -> Any:
        try:
            list(loader)
        except ValueError as error:
            # Its frames hold the iterator; where the garbage collector ends that, torch waits 5 s a worker.
            traceback.clear_frames(error.__traceback__)
            return type(error), str(error).splitlines()[-1]
        pytest.fail("nothing was raised")

    plain = error_of(DataLoader(dataset(), batch_size=4, num_workers=workers))
    assert "is broken" in plain[1]
    with pipeprof.profile(
        DataLoader(dataset(), batch_size=4, num_workers=workers), out=tmp_path / "run"
    ) as loader:
        assert error_of(loader) == plain
    failed = [row for row in rows(tmp_path / "run", "batches") if row["finish_ns"] is None]
    assert len(failed) >= 1
    assert load(tmp_path / "run").status == "complete"


def test_an_exception_in_the_block_is_told_in_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError), pipeprof.profile(DataLoader(cases.Squares()), out=tmp_path / "run"):
        raise KeyError("x")
    assert load(tmp_path / "run").status == "failed"
    assert "KeyError" in load(tmp_path / "run").meta.error


@contextmanager
def handled() -> Iterator[None]:
    """Wait for torch's handler of SIGCHLD if a loop has failed otherwise: it may raise a moment later,
    wherever the main thread is then."""
    try:
        yield
    except (ConnectionResetError, EOFError):
        for _ in range(20):
            time.sleep(0.05)
        raise


@pytest.mark.parametrize("loop_s", [0.0, 0.2], ids=["found in next", "found in the loop's body"])
def test_a_killed_worker(tmp_path: Path, loop_s: float) -> None:
    others = set(multiprocessing.active_children())  # not every child is a worker
    loader = DataLoader(cases.Slow(400), batch_size=2, num_workers=2)
    # Plain torch raises the others too, where the worker dies while it hands out a batch's descriptors.
    lost = (RuntimeError, ConnectionResetError, EOFError)
    with pipeprof.profile(loader, out=tmp_path / "run"), pytest.raises(lost) as raised, handled():
        for step, _ in enumerate(loader):
            if step == 3:
                victim = (set(multiprocessing.active_children()) - others).pop()
                victim.kill()
                time.sleep(loop_s)  # torch's handler of SIGCHLD raises wherever the loop is
    assert raised.type is not RuntimeError or "worker" in str(raised.value)
    lost_workers = events(tmp_path / "run", "worker_lost")
    assert [row["detail"] for row in lost_workers] == [str(victim.pid)]
    # what it had finished before is there: at least as much as the loop has taken
    made = {(row["epoch"], row["seq"]) for row in rows(tmp_path / "run", "batches")}
    assert {(row["epoch"], row["seq"]) for row in rows(tmp_path / "run", "steps")} <= made


class Broken(cases.Slow):
    def __getitem__(self, index: int) -> Any:
        raise ZeroDivisionError(index)


def test_a_loop_that_failed_leaves_no_worker_behind() -> None:
    """Frames of the error hold the iterator and so its workers: nothing of ours may hold the error."""
    others = set(multiprocessing.active_children())
    loader = DataLoader(Broken(40), batch_size=2, num_workers=2)
    with suppress(ZeroDivisionError), pipeprof.profile(loader) as observed:
        next(iter(observed))
    gc.collect()
    assert not set(multiprocessing.active_children()) - others


def test_what_a_handler_of_a_signal_raises_does_not_break_the_end_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's handler raises in the main thread, whatever it does at the time."""

    def raise_now(*_: Any) -> None:
        raise RuntimeError("DataLoader worker is killed")

    before = signal.signal(signal.SIGUSR1, raise_now)
    close = TraceWriter.close

    def interrupted(self: TraceWriter, status: Status) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)  # the main thread's handler runs meanwhile
        close(self, status)

    monkeypatch.setattr(TraceWriter, "close", interrupted)
    try:
        session = Session(tmp_path / "run")
        assert len(list(session.observe(DataLoader(cases.Squares(8), batch_size=2)))) == 4
        with pytest.raises(RuntimeError, match="worker is killed"):
            session.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert load(tmp_path / "run").status == "complete"
    assert len(rows(tmp_path / "run", "steps")) == 4


def test_workers_that_have_done_their_work_are_not_lost(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(8), batch_size=2, num_workers=2)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        held = iter(loader)
        assert len(list(held)) == 4
        assert held is not None  # torch has joined its workers, and the iterator is still there
    assert events(tmp_path / "run", "worker_lost") == []


def test_a_killed_program_leaves_what_was_flushed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = os.fork()
    if child == 0:
        session = Session(out)
        for _ in session.loader(cases.Slow(), batch_size=2):
            pass
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert load(out).status == "partial"
    assert len(rows(out, "steps")) == 20


def test_a_forked_child_leaves_the_run_alone(tmp_path: Path) -> None:
    with Session(tmp_path / "run") as session:
        loader = session.loader(cases.Squares(8), batch_size=2)
        list(loader)
        child = os.fork()
        if child == 0:
            list(loader)  # not observed in the child
            session.flush()
            session.close("failed")
            session.discard()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        list(loader)
    assert load(tmp_path / "run").status == "complete"
    assert len(rows(tmp_path / "run", "steps")) == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_that_look_like_ours_are_left_alone(workers: int, tmp_path: Path) -> None:
    """Four parts, as a batch has that carries its key; some cannot be compared with a text."""

    loader = DataLoader(
        cases.Stream(8),
        batch_size=2,
        num_workers=workers,
        collate_fn=four_parts,
        persistent_workers=workers > 0,
    )
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert [len(batch) for batch in loader] == [4] * 4
        held = iter(loader)
        next(held)
    assert [len(batch) for batch in held] == [4] * 3, "the run is over"
    assert active() is None


def four_parts(samples: list[Any]) -> Any:
    return np.arange(3), len(samples), None, samples


def wait_for_end(out: Path) -> Any:
    deadline = time.monotonic() + 10
    while (run := load(out)).status == "running" and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    return run


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_goes_before_its_iterator(workers: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    taken = 0
    for _ in ProfiledDataLoader(cases.Squares(8), batch_size=2, num_workers=workers, out=out):
        time.sleep(0.1)  # the flush thread looks around meanwhile
        taken += 1
    run = wait_for_end(out)
    assert (taken, run.status, len(run.table("steps"))) == (4, "complete", 4)


def rebuilt(loader: Any) -> Any:
    """As Accelerate's `prepare` does: a plain loader from another's public attributes."""
    names = ("batch_sampler", "collate_fn", "num_workers", "persistent_workers")
    return DataLoader(loader.dataset, **{name: getattr(loader, name) for name in names})


def test_a_loader_that_is_taken_apart_for_another(tmp_path: Path) -> None:
    out = tmp_path / "run"
    loader = ProfiledDataLoader(cases.Squares(8), batch_size=2, num_workers=1, out=out)
    loader = rebuilt(loader)  # type: ignore[assignment]
    time.sleep(0.1)
    assert len(list(loader)) == 4
    assert len(list(loader)) == 4
    del loader
    run = wait_for_end(out)
    assert (run.status, len(run.table("steps"))) == ("complete", 8)
    assert not any("no iterator" in what for what in run.meta.not_observed)


def test_a_loader_that_is_taken_apart_inside_the_block(tmp_path: Path) -> None:
    original = DataLoader(cases.Squares(8), batch_size=2)
    other = DataLoader(original.dataset, batch_size=4)
    new = rebuilt(original)
    for out in (tmp_path / "a", tmp_path / "b"):
        with pipeprof.profile(original, out=out):
            assert len(list(new)) == 4
            assert len(list(other)) == 2  # of the same data, and not in its stead
        assert len(load(out).table("steps")) == 4
    assert len(list(new)) == 4


def test_workers_that_were_there_before_are_told_of(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(8), batch_size=2, num_workers=1, persistent_workers=True)
    assert len(list(loader)) == 4
    with (
        pytest.warns(RuntimeWarning, match="started before"),
        pipeprof.profile(loader, out=tmp_path / "run"),
    ):
        assert len(list(loader)) == 4
    run = load(tmp_path / "run")
    assert len(run.table("steps")) == 4, "the waits are observed"
    assert len(run.table("batches")) == 0
    assert any("workers do" in what for what in run.meta.not_observed)
    assert any("started before" in text for text in run.meta.warnings)


def test_the_temporary_run_goes_with_the_loader() -> None:
    loader = ProfiledDataLoader(cases.Squares(8), batch_size=2)
    list(loader)
    directory = loader.session.directory
    assert loader.summary()["steps"] == 4
    assert directory.is_dir()
    del loader
    gc.collect()
    deadline = time.monotonic() + 10
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not directory.exists()


def test_profiled_data_loader_is_a_data_loader(tmp_path: Path) -> None:
    loader = ProfiledDataLoader(cases.Squares(8), 2, True, num_workers=1, out=tmp_path / "run")
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, loader.num_workers, len(loader)) == (2, 1, 4)
    assert type(loader.dataset) is cases.Squares
    list(loader)
    assert type(loader.dataset) is cases.Squares
    summary = loader.summary()
    assert summary["samples"] == 8
    assert abs(sum(v for k, v in summary.items() if k.startswith("stage/")) - 1) < 1e-9
    assert loader.verdict().measured.steps == 4
    saved = loader.save(tmp_path / "saved")
    assert load(saved).status == "complete"
    assert len(rows(saved, "steps")) == 4
    with pytest.raises(TraceError, match="already holds a run"):
        loader.save(tmp_path / "saved")
    loader.session.close()


@pytest.mark.slow
def test_lightning(tmp_path: Path) -> None:
    """Its `predict` rebuilds the loader from its attributes; the rebuilt one joins the run."""
    import lightning  # here, so that only who runs this waits for the import

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.layer(batch[0]).mean()

        def predict_step(self, batch: Any, _: int) -> Any:
            return batch[1]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = ProfiledDataLoader(cases.Squares(8), batch_size=2, num_workers=1, out=tmp_path / "run")
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        barebones=False,
    )
    model = Model()
    trainer.fit(model, loader)
    predicted = trainer.predict(model, loader)
    assert [int(p[0]) for p in predicted] == [0, 4, 16, 36]
    loader.session.close()
    assert len(rows(tmp_path / "run", "steps")) == 2 * 4 + 4


@pytest.mark.slow
def test_accelerate_takes_a_profiled_loader_apart(tmp_path: Path) -> None:
    from accelerate import Accelerator

    out = tmp_path / "run"
    loader = Accelerator(cpu=True).prepare(ProfiledDataLoader(cases.Squares(8), batch_size=2, out=out))
    assert len(list(loader)) == 4
    del loader
    assert len(wait_for_end(out).table("steps")) == 4


@pytest.mark.slow
def test_accelerate_loses_the_subclass_and_is_observed_after_prepare(tmp_path: Path) -> None:
    from accelerate import Accelerator

    loader = Accelerator(cpu=True).prepare(DataLoader(cases.Squares(8), batch_size=2, num_workers=1))
    with pipeprof.profile(loader, out=tmp_path / "run"):
        assert len(list(loader)) == 4
    assert len(rows(tmp_path / "run", "steps")) == 4


def test_stages_of_the_loop_belong_to_the_batch_before(tmp_path: Path) -> None:
    loader = DataLoader(cases.Squares(6), batch_size=2)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        for _ in loader:
            with pipeprof.stage("work"):
                time.sleep(0.002)
    work = [row for row in rows(tmp_path / "run", "stages") if row["scope"] == 1]
    assert [(row["seq"], row["stage"], row["count"]) for row in work] == [
        (seq, "stage:work", 1) for seq in range(3)
    ]
    assert all(row["wall_ns"] >= 2_000_000 for row in work)


def test_the_loop_of_a_validation_inside_a_loop_has_its_own_stages(tmp_path: Path) -> None:
    train = DataLoader(cases.Squares(4), batch_size=2)
    check = DataLoader(cases.Squares(6), batch_size=2)
    with pipeprof.profile(train, out=tmp_path / "train"), pipeprof.profile(check, out=tmp_path / "check"):
        for _ in train:
            for _ in check:
                with pipeprof.stage("measure"):
                    pass
            with pipeprof.stage("step"):
                pass
    for out, stage in (("train", "stage:step"), ("check", "stage:measure")):
        counts = [(row["stage"], row["count"]) for row in rows(tmp_path / out, "stages") if row["scope"] == 1]
        assert counts == [(stage, 1)] * len(rows(tmp_path / out, "steps"))


def test_a_session_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(pipeprof.PipeprofError, match="detail"):
        Session(tmp_path, detail="everything")
    assert not list(tmp_path.iterdir())
