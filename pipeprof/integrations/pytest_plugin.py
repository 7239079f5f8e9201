"""The pytest plugin: `@pytest.mark.pipeprof(max_stall="5%")` fails a test whose loop waits for data.

Nothing but pytest is imported until a test bears the mark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

MARK = (
    'pipeprof(max_stall="5%", min_utilization=None): fail where the DataLoaders of the test stall its loop '
    "more than this; skip where the run cannot tell."
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", MARK)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Observe a marked test, and hold its run to the gates once it has passed by itself."""
    marker = item.get_closest_marker("pipeprof")
    if marker is None:
        return (yield)
    gates = _gates(marker)
    from pipeprof.integrations.block import observed_block

    with tempfile.TemporaryDirectory(prefix="pipeprof-") as scratch:
        directory = Path(scratch) / "run"
        with observed_block(directory, item.nodeid) as session:
            result = yield
        if not session.steps.taken:
            pytest.fail("pipeprof: the test took no batch from a DataLoader", pytrace=False)
        _hold(directory, gates)
        return result


def _gates(marker: pytest.Mark) -> dict[str, float]:
    from pipeprof.units import share

    known = {"max_stall", "min_utilization"}
    if marker.args or not marker.kwargs or not known.issuperset(marker.kwargs):
        raise pytest.UsageError(f"write the mark as {MARK.partition(':')[0]}")
    try:
        return {name: share(value) for name, value in marker.kwargs.items() if value is not None}
    except ValueError as error:
        raise pytest.UsageError(f"@pytest.mark.pipeprof: {error}") from error


def _hold(directory: Path, limits: dict[str, float]) -> None:
    """Fail if a gate failed, skip if one is inconclusive. Says the verdict's sentence with it."""
    from pipeprof.analyse import gates
    from pipeprof.analyse.analysis import load

    analysis = load(directory)
    results = gates.check(analysis, limits.get("max_stall"), limits.get("min_utilization"))
    failed = [gate.says for gate in results if gate.passed is False]
    if failed:
        pytest.fail(f"pipeprof: {'; '.join(failed)}. {analysis.verdict.sentence}", pytrace=False)
    unsure = [gate.says for gate in results if gate.passed is None]
    if unsure:
        pytest.skip(f"pipeprof: {'; '.join(unsure)}")
