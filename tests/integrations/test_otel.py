"""OpenTelemetry's own SDK collects what a loader's summary says."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import pipeprof

pytest.importorskip("opentelemetry.sdk.metrics", reason="opentelemetry-sdk is not installed")


@pytest.fixture
def reader() -> Any:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return InMemoryMetricReader()


@pytest.fixture
def meter(reader: Any) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider

    provider = MeterProvider(metric_readers=[reader])
    yield provider.get_meter("test")
    provider.shutdown()


def collected(reader: Any) -> dict[tuple[str, ...], float]:
    """By instrument and attributes."""
    data = reader.get_metrics_data()
    return {
        (metric.name, *map(str, point.attributes.values())): point.value
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_a_reader_collects_the_summary(reader: Any, meter: Any) -> None:
    from pipeprof.integrations import otel

    with pipeprof.profile(DataLoader(TensorDataset(torch.zeros(48, 4)), batch_size=8)) as loader:
        otel.observe(loader, meter)
        for _ in loader:
            pass
        found, summary = collected(reader), loader.summary()
    assert found[("pipeprof.steps",)] == summary["steps"] == 6
    assert found[("pipeprof.samples",)] == 48
    assert found[("pipeprof.samples.rate",)] == summary["samples_per_s"]
    assert found[("pipeprof.wait.time",)] == summary["wait_s"]
    assert found[("pipeprof.wait.share",)] == summary["wait_share"]
    assert found[("pipeprof.stage.share", "collate")] == summary["stage/collate_share"]


def test_a_reader_collects_whose_the_last_seconds_were(reader: Any, meter: Any) -> None:
    from pipeprof.integrations import otel

    with pipeprof.profile(DataLoader(TensorDataset(torch.zeros(240, 4)), batch_size=8)) as loader:
        otel.observe(loader, meter)
        for _ in loader:
            pass
        found, verdict = collected(reader), loader.recent()
    assert verdict is not None and verdict.measured.ledger_ns is not None
    shares = {name[1]: share for name, share in found.items() if name[0] == "pipeprof.owner.share"}
    assert shares.keys() == verdict.measured.ledger_ns.keys()
    assert sum(shares.values()) == pytest.approx(1)
    assert found[("pipeprof.stall.share", verdict.cause)] == pytest.approx(verdict.stall_share)
    assert loader.__dict__.get("recent") is None


def test_a_mechanism_is_a_metric_where_one_is_named() -> None:
    from pipeprof.analyse.verdict import Verdict
    from pipeprof.integrations import otel

    class Loader:
        def __init__(self, mechanism: str | None) -> None:
            self.named = Verdict(
                "high", "decode", "none", 0.5, None, mechanism=mechanism, mechanism_share=0.75
            )
            self.calls = 0

        def recent(self) -> Verdict:
            self.calls += 1
            return self.named

    known, unknown = Loader("oversized-images"), Loader(None)
    recent = otel._Recent(weakref.ref(known), lambda: 100.0)
    (observed,) = recent.mechanism(None)
    assert observed.value == 0.75
    assert observed.attributes == {"pipeprof.cause": "decode", "pipeprof.mechanism": "oversized-images"}
    assert list(otel._Recent(weakref.ref(unknown)).mechanism(None)) == []
    assert [each.value for each in recent.stall(None)] == [0.5]
    assert known.calls == 1, "one verdict serves all that is collected together"


def test_what_is_not_observed_has_no_data_point(reader: Any, meter: Any) -> None:
    from pipeprof.integrations import otel

    with pipeprof.profile([1, 2, 3]) as items:
        otel.observe(items, meter)
        assert list(items) == [1, 2, 3]
        found = collected(reader)
    assert found[("pipeprof.steps",)] == 3
    assert ("pipeprof.samples",) not in found


def test_after_the_block_nothing_is_observed(reader: Any, meter: Any) -> None:
    from pipeprof.integrations import otel

    with pipeprof.profile([1]) as items:
        otel.observe(items, meter)
    assert collected(reader) == {}
