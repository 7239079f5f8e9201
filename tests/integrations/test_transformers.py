"""The callback in a real Trainer, with a model of random weights: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.record.reader import load
from tests.integrations import counted_calls, needs

pytestmark = [pytest.mark.heavy, needs("transformers")]
STEPS = 6


def test_a_training_is_observed_and_its_reporters_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeprof.integrations.transformers import PipeprofCallback
    from tests.integrations.in_transformers import Reporter, Tokens, a_trainer

    reporter = Reporter()
    trainer = a_trainer(tmp_path, Tokens(), reporter, workers=1)
    callback = PipeprofCallback(trainer, tmp_path / "run", every_n_steps=4)
    trainer.add_callback(callback)
    trainer.train()
    run = load(tmp_path / "run")
    assert run.status == "complete"
    assert run.table("steps")["epoch"].to_pylist() == [0] * STEPS + [1] * STEPS
    assert set(run.table("batches")["worker"].to_pylist()) == {0}, "the inside of the worker is seen"
    assert [told["epoch"] for told in reporter.told] == [4 / 6, 1.0, 8 / 6, 2.0, 2.0]
    assert reporter.told[-1]["pipeprof/steps"] == 2 * STEPS
    assert callback.verdict is not None
    assert callback.verdict.sentence in capsys.readouterr().out


def test_evaluations_and_predictions_are_observed(tmp_path: Path) -> None:
    from pipeprof.integrations.transformers import PipeprofCallback
    from tests.integrations.in_transformers import Tokens, a_trainer

    trainer = a_trainer(tmp_path, Tokens())
    trainer.eval_dataset = Tokens()
    trainer.args.eval_strategy = "epoch"
    callback = PipeprofCallback(trainer, tmp_path / "run")
    trainer.add_callback(callback)
    trainer.train()
    trainer.predict(Tokens())
    named = [[each.name for each in load(tmp_path / name).meta.loaders] for name in ("run", "run-2")]
    assert (set(named[0]), named[1]) == ({"train", "evaluation"}, ["test"])
    assert load(tmp_path / "run").table("steps").num_rows == 4 * STEPS
    assert load(tmp_path / "run-2").table("steps").num_rows == STEPS
    assert load(tmp_path / "run-2").status == "complete"


def test_a_training_that_fails_leaves_a_run_up_to_there(tmp_path: Path) -> None:
    from pipeprof.integrations.transformers import PipeprofCallback
    from tests.integrations.in_transformers import Tokens, a_trainer

    trainer = a_trainer(tmp_path, Tokens(broken=13))
    callback = PipeprofCallback(trainer, tmp_path / "run")
    trainer.add_callback(callback)
    with pytest.raises(ValueError, match="sample 13") as raised:
        trainer.train()
    callback.close(raised.value)
    assert load(tmp_path / "run").status == "failed"
    assert callback.verdict is not None
    assert callback.verdict.cause == "inconclusive", "it has too few steps"


def test_it_costs_no_more_than_the_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has one request and one take, as with the wrapper; the summary is asked for to be told."""
    from pipeprof.integrations.transformers import PipeprofCallback
    from tests.integrations.in_transformers import Tokens, a_trainer

    calls = counted_calls(monkeypatch)
    trainer = a_trainer(tmp_path, Tokens())
    trainer.add_callback(PipeprofCallback(trainer))
    trainer.train()
    assert calls["took"] == 2 * STEPS
    assert calls["requested"] <= 2 * STEPS + 2, "and one at the end of each epoch"
    assert calls["summary"] == 2, "one an epoch"
