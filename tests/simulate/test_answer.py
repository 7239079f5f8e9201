"""An answer with predictions: a run that cannot be predicted from is still answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.devices import STORAGE
from pipeprof.errors import InconclusiveError
from pipeprof.report import html
from pipeprof.simulate import answer as answers
from tests.factory import Plan
from tests.simulate.common import CPU_ONLY, recorded


def test_a_run_without_a_read_is_predicted_from_and_reported(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Plan(batches=60, stages=CPU_ONLY), STORAGE["sata-ssd"])
    found = answers.answer(run)
    assert found.unpredicted == "" and found.replay is not None
    assert found.headspace_samples_per_s is not None
    assert html.write(found, tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("part", ["open_run", "rank", "replay", "headspace"])
def test_a_refusal_of_any_prediction_leaves_the_analysis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise InconclusiveError("it cannot say")

    run = recorded(tmp_path / "run", Plan(batches=60, stages=CPU_ONLY))
    monkeypatch.setattr(answers, part, refuses)
    found = answers.answer(run)
    assert found.unpredicted == "it cannot say"
    assert found.replay is None and found.fixes == ()
    assert found.verdict.cause == answers.analyse(run).verdict.cause
