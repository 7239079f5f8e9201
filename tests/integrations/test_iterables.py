"""profile() of what is no DataLoader: its waits, and no more than that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import pipeprof
from pipeprof.errors import MeasureError
from pipeprof.measure.device.here import available_device
from pipeprof.record.reader import load
from tests.integrations import counted_calls
from tests.timing import Timing


class Lines:
    """Iterable again and again; what it marks itself is none of the loop's."""

    def __init__(self, count: int = 30, wait_s: float = 0.0) -> None:
        self.count, self.wait_s = count, wait_s

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            with pipeprof.stage("inside"):
                time.sleep(self.wait_s)
            yield number

    def __len__(self) -> int:
        return self.count


class LikeDali:
    """The protocol of DALI's `DALIGenericIterator`, which needs a GPU: it is its own iterator, gives a list
    of one dictionary a pipeline, and after StopIteration wants `reset()`."""

    def __init__(self, batches: int = 4) -> None:
        self.batches, self.at = batches, 0

    def __iter__(self) -> LikeDali:
        return self

    def __next__(self) -> list[dict[str, torch.Tensor]]:
        if self.at >= self.batches:
            raise StopIteration
        self.at += 1
        return [{"data": torch.full((2, 3), self.at)}]

    next = __next__

    def reset(self) -> None:
        self.at = 0

    def __len__(self) -> int:
        return self.batches


def test_waits_are_recorded_and_the_inside_is_said_not_to_be(tmp_path: Path) -> None:
    with pipeprof.profile(Lines(wait_s=0.004), out=tmp_path / "run") as lines:
        for _ in lines:
            time.sleep(0.002)
        summary, verdict = lines.summary(), lines.verdict()
    assert summary["steps"] == 30
    assert not any(name.startswith("samples") for name in summary), "how many a batch holds is not known"
    assert (verdict.band, verdict.cause, verdict.detail) == (
        "highly",
        "inconclusive",
        "inside-not-observed",
    )
    assert "Lines" in verdict.sentence
    assert verdict.stall_share == pytest.approx(summary["wait_share"], abs=0.05)
    assert verdict.measured.throughput_samples_per_s is None
    assert "the inside of Lines" in verdict.measured.not_observed
    run = load(tmp_path / "run")
    assert run.meta.loaders[0].kind == "iterable"
    assert run.meta.loaders[0].workers is None
    steps = run.table("steps")
    assert set(steps["samples"].to_pylist()) == set(steps["arrival_ns"].to_pylist()) == {None}
    assert len(run.table("stages")) == 0, "a stage inside the wait is none of the loop's"


@pytest.mark.usefixtures("of_any_length")
def test_a_loop_that_hardly_waits_is_called_so(timing: Timing) -> None:
    def attempt(_: int) -> None:
        with pipeprof.profile(Lines()) as lines:
            for _ in lines:
                time.sleep(0.03)
            assert lines.verdict().cause == "accelerator"

    timing.attempts(attempt)


def test_report_and_predict_take_such_a_run(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pipeprof.cli.show.predict import command as predict
    from pipeprof.cli.show.report import command as report

    with pipeprof.profile(Lines(wait_s=0.002), out=tmp_path / "run") as lines:
        assert list(lines) == list(range(30))
    done = CliRunner().invoke(report, [str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "Lines, whose inside is not observed" in " ".join(done.output.split())
    assert (tmp_path / "run" / "report.html").exists()
    refused = CliRunner().invoke(predict, [str(tmp_path / "run")])
    assert isinstance(refused.exception, pipeprof.PipeprofError), refused.output
    assert "whose making was seen" in str(refused.exception)


def test_each_pass_is_an_epoch_and_a_torn_one_counts(tmp_path: Path) -> None:
    with pipeprof.profile(Lines(3), out=tmp_path / "run") as lines:
        assert list(lines) == [0, 1, 2]
        for _ in lines:
            break
        assert list(lines) == [0, 1, 2]
        assert len(lines) == lines.count == 3, "its own attributes are at hand"
    steps = load(tmp_path / "run").table("steps")
    assert steps["epoch"].to_pylist() == [0, 0, 0, 1, 2, 2, 2]
    assert steps["seq"].to_pylist() == [0, 1, 2, 0, 0, 1, 2]


def test_an_iterator_like_dalis(tmp_path: Path) -> None:
    with pipeprof.profile(LikeDali(), out=tmp_path / "run") as batches:
        for _ in range(2):
            assert [int(batch[0]["data"][0, 0]) for batch in batches] == [1, 2, 3, 4]
            batches.reset()
        assert int(next(batches)[0]["data"][0, 0]) == 1, "and by hand"
    assert load(tmp_path / "run").table("steps")["epoch"].to_pylist() == [0] * 4 + [1] * 4 + [2]


def test_a_generator_is_taken_as_it_is(tmp_path: Path) -> None:
    with pipeprof.profile((n * n for n in range(5)), out=tmp_path / "run") as squares:
        assert next(squares) == 0
        assert list(squares) == [1, 4, 9, 16]
    assert len(load(tmp_path / "run").table("steps")) == 5


def test_a_loader_inside_is_observed_whole_and_what_stands_around_it_is_a_stage(tmp_path: Path) -> None:
    class Wrapped:
        def __init__(self) -> None:
            self.parts = [DataLoader(TensorDataset(torch.arange(48)), batch_size=8)]

        def __iter__(self) -> Iterator[Any]:
            for batch in self.parts[0]:
                time.sleep(0.002)
                yield batch

    with pipeprof.profile(Wrapped(), out=tmp_path / "run") as wrapped:
        assert torch.equal(torch.cat([batch[0] for batch in wrapped]), torch.arange(48))
        assert wrapped.summary()["samples"] == 48
    run = load(tmp_path / "run")
    assert len(run.table("batches")) == 6
    assert run.meta.not_observed == ()
    beside = [row for row in run.table("stages").to_pylist() if row["scope"] == 1]
    assert {row["stage"] for row in beside} == {"stage:Wrapped"}
    assert sum(row["wall_ns"] for row in beside) >= 5 * 2_000_000


def test_an_error_inside_is_the_runs_error(tmp_path: Path) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("shard 7")

    with pytest.raises(KeyError), pipeprof.profile(broken(), out=tmp_path / "run") as items:
        list(items)
    run = load(tmp_path / "run")
    assert run.status == "failed"
    assert "shard 7" in run.meta.error


def test_what_cannot_be_iterated() -> None:
    with pytest.raises(MeasureError, match="a int cannot be iterated"), pipeprof.profile(3):
        pass


def test_a_wait_costs_one_request_and_one_take(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_calls(monkeypatch)
    with pipeprof.profile(Lines(10)) as lines:
        assert len(list(lines)) == 10
    assert calls == {"requested": 11, "took": 10}, "and one request at the end"


@pytest.mark.gpu
@pytest.mark.skipif(available_device() is None, reason="torch sees no device here")
def test_the_devices_wait_is_measured(tmp_path: Path) -> None:
    data = torch.randn(512, 512, device=torch.accelerator.current_accelerator())
    with pipeprof.profile(Lines(wait_s=0.01), out=tmp_path / "run") as lines:
        for _ in lines:
            data = data @ data
            torch.accelerator.synchronize()
    waits = load(tmp_path / "run").table("steps")["device_wait_ns"].to_pylist()
    assert sum(wait is not None and wait > 8_000_000 for wait in waits) >= 28


def test_a_verdict_is_shown_at_the_end_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pipeprof.profile([1, 2, 3], show=True) as batches:
        list(batches)
    assert "inconclusive: only 3 steps" in capsys.readouterr().out
    with pytest.raises(ValueError, match="mine"), pipeprof.profile([1], show=True) as batches:
        raise ValueError("mine")
    assert capsys.readouterr().out == ""
