"""Runs that several tests of the report read. Reading changes nothing, so they are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.analysis import Analysis, load
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, Plan, make_run
from tests.report.page.hostile import make_bare, make_hostile, make_torn

SLOW = {"read": 30 * MS, "decode": 60 * MS, "transform:RandomResizedCrop": 9 * MS, "collate": 4 * MS}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def stalled(made: Path) -> Analysis:
    """Two workers that cannot keep up."""
    return load(make_run(made / "stalled", Plan(batches=120, workers=2, stages=SLOW, jitter=0.1)))


@pytest.fixture(scope="session")
def stalled_forecast(stalled: Analysis) -> Forecast:
    """The predictions from it."""
    return Forecast(stalled)


@pytest.fixture(scope="session")
def healthy(made: Path) -> Analysis:
    """Workers that are always ahead."""
    return load(
        make_run(made / "healthy", Plan(batches=120, workers=4, stages={"read": MS, "decode": 5 * MS}))
    )


@pytest.fixture(scope="session")
def odd(made: Path) -> dict[str, Analysis]:
    """Runs that are hostile, empty, torn, tiny."""
    return {
        "hostile": load(make_hostile(made / "hostile")),
        "hostile_one_batch": load(make_hostile(made / "one", batches=1, warmup=0)),
        "bare": load(make_bare(made / "bare")),
        "failed": load(make_bare(made / "failed", "failed", error="it broke")),
        "torn": load(make_torn(made / "torn")),
        "one_batch": load(make_run(made / "single", Plan(batches=1, warmup=0))),
        "no_workers": load(make_run(made / "inline", Plan(workers=0, batches=40))),
        "no_device": load(make_run(made / "wrapper", Plan(accelerator="none", batches=40))),
        "two_epochs": load(make_run(made / "epochs", Plan(epochs=3, batches=30, spans_every=0))),
        "meta_missing": load(
            make_bare(made / "meta", loaders=None, storage=None, accelerator=None, machine=None)
        ),
    }


@pytest.fixture(scope="session")
def odd_forecasts(odd: dict[str, Analysis]) -> dict[str, Forecast]:
    """The predictions from them, as far as there are any."""
    return {name: Forecast(analysis) for name, analysis in odd.items()}


@pytest.fixture(scope="session")
def healthy_forecast(healthy: Analysis) -> Forecast:
    """The predictions from a run that lacks nothing."""
    return Forecast(healthy)
