"""Batches that travel by name: what is predicted of it where a worker's GIL held them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.simulate.forecast import Forecast
from tests.analyse.why.test_mechanisms import handed_over
from tests.factory import MS, make_run


@pytest.mark.parametrize("step", ["pickled", "received"])
def test_sharing_by_name_is_predicted_where_batches_wait_to_be_received(tmp_path: Path, step: str) -> None:
    """A batch that waits to be pickled needs its worker's GIL however it is shared."""
    forecast = Forecast(load(make_run(tmp_path / "run", handed_over(55 * MS, locked=True, step=step))))
    assert forecast.unpredicted == ""
    asked = [ranked for ranked in forecast.fixes if ranked.fix.word == "file-system-sharing"]
    assert len(asked) == (step == "received")
    for ranked in asked:
        assert ranked.fix.knobs.shares_by_name and "file_system" in ranked.fix.how
        assert ranked.gain > -0.02, "it takes a wait away and adds none"
