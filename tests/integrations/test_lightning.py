"""The callback in a real Lightning trainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeprof.analyse.job.merge import merge
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.record.reader import Run, load
from tests.forked import Program
from tests.integrations import counted_calls, needs
from tests.measure.bench.test_ranks_together import free_port

pytestmark = [pytest.mark.heavy, needs("lightning")]
STEPS = 6


def epochs_by_loader(run: Run) -> dict[str, list[int]]:
    """Epochs of the steps, by the name of their loader."""
    found: dict[str, list[int]] = {}
    steps = run.table("steps")
    for number, epoch in zip(steps["loader"].to_pylist(), steps["epoch"].to_pylist(), strict=True):
        found.setdefault(run.meta.loader(number).name, []).append(epoch)
    return found


@pytest.fixture
def callback(tmp_path: Path) -> Any:
    from pipeprof.integrations.lightning import PipeprofCallback

    return PipeprofCallback(tmp_path / "run", every_n_steps=4)


def test_a_fit_is_observed_and_its_loggers_are_told(
    tmp_path: Path, callback: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.integrations.in_lightning import Kept, Model, loader, trainer

    logger, train, check = Kept(), loader(workers=1), loader()
    trainer(tmp_path, callback, logger).fit(Model(), train, check)
    run = load(tmp_path / "run")
    assert run.status == "complete"
    epochs = epochs_by_loader(run)
    assert epochs["train"] == [0] * STEPS + [1] * STEPS
    assert len(epochs["val"]) == 2 + 2 * STEPS, "two batches before the fit, and one pass an epoch"
    assert 0 in run.table("batches")["worker"].to_pylist(), "the inside of the worker is seen"
    assert [step for step, _ in logger.told] == [4, 6, 8, 12, 12]
    assert logger.told[-1][1]["pipeprof/steps"] == 2 + 4 * STEPS
    assert callback.verdict.sentence in capsys.readouterr().out
    assert hook.observer_of(train) is None, "the loader is plain again"


def test_the_batches_are_those_of_a_fit_without_it(tmp_path: Path, callback: Any) -> None:
    from tests.integrations.in_lightning import Model, lightning, loader, trainer

    seen = []
    for one in (callback, lightning.Callback()):
        lightning.seed_everything(3, verbose=False)
        model = Model()
        trainer(tmp_path, one, False).fit(model, loader())
        seen.append(torch.cat(model.seen))
    assert torch.equal(*seen)


def test_a_fit_that_fails_leaves_a_run_that_says_so(tmp_path: Path, callback: Any) -> None:
    from tests.integrations.in_lightning import Model, loader, trainer

    with pytest.raises(ValueError, match="step 2"):
        trainer(tmp_path, callback, False).fit(Model(fails_at=2), loader())
    run = load(tmp_path / "run")
    assert run.status == "failed"
    assert "step 2 is broken" in run.meta.error


@pytest.mark.parametrize(("stage", "name"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_what_follows_a_fit_is_a_run_of_its_own(
    stage: str, name: str, tmp_path: Path, callback: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.integrations.in_lightning import Model, loader, trainer

    fitting, model = trainer(tmp_path, callback, False), Model()
    fitting.fit(model, loader())
    capsys.readouterr()
    getattr(fitting, stage)(model, loader())
    assert callback.verdict.sentence in capsys.readouterr().out
    run = load(tmp_path / "run-2")
    assert epochs_by_loader(run) == {name: [0] * STEPS}


def test_each_rank_of_a_fit_records_its_part_and_one_tells_the_verdict(tmp_path: Path) -> None:
    """With what Lightning's own launcher tells each of them."""
    from tests.integrations.in_lightning import fit_as_rank

    port = free_port()
    job = [Program(partial(fit_as_rank, rank, port), tmp_path) for rank in (0, 1)]
    done = [program.finished() for program in job]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert ["pipeprof:" in one.stdout for one in done] == [True, False]
    found = merge([tmp_path / "job"])
    assert found.status == "complete"
    runs = [load(row.directory) for row in found.ranks]
    assert [run.table("steps").num_rows for run in runs] == [STEPS, STEPS]
    assert sum(sum(run.table("steps")["samples"].to_pylist()) for run in runs) == 2 * 48, "shared out"
    assert [run.meta.local_world_size for run in runs] == [2, 2], "who share this machine's cores"


def test_it_costs_no_more_than_the_wrapper(
    tmp_path: Path, callback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has one request and one take, as with the wrapper; the summary is asked for to be told."""
    from tests.integrations.in_lightning import Kept, Model, loader, trainer

    calls = counted_calls(monkeypatch)
    callback.every_n_steps = None
    trainer(tmp_path, callback, Kept()).fit(Model(), loader())
    assert calls["took"] == 2 * STEPS
    assert calls["requested"] <= 2 * STEPS + 2, "and one at the end of each epoch"
    assert calls["summary"] == 2, "one an epoch"
