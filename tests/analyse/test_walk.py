"""The walk finds the critical path that the run was made with, and leaves no nanosecond over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeprof.analyse.attribution import attribute
from pipeprof.analyse.tiling import ALWAYS
from pipeprof.analyse.walk import MAKING, critical_path
from pipeprof.pipeline import measured_window, read_timeline, shapes_of
from pipeprof.trace import TABLES, Run, TraceWriter, load
from tests.analyse import oracle
from tests.factory import MS, ORIGIN_NS, Plan, make_run, walk

GPU = {"gpu_names": ["made"], "usable_cores": 8, "cpu_count": 8}
"""`machine` of run.json: torch starts its pin thread only beside a GPU."""


def walked(run: Run) -> Counter[str]:
    """Owners of the walk's pieces, the making of batches as one."""
    timeline = read_timeline(run)
    window = measured_window(timeline)
    assert window is not None
    path = critical_path(timeline, shapes_of(run, timeline), window)
    assert (path.bounds[0], path.bounds[-1]) == window
    assert (np.diff(path.bounds) > 0).all()
    names = [*ALWAYS, oracle.MAKING]
    assert len(ALWAYS) == MAKING
    found: Counter[str] = Counter()
    for owner, ns in zip(path.owner.tolist(), np.diff(path.bounds).tolist(), strict=True):
        found[names[owner]] += ns
    return found


def with_arrivals(run: Run, plan: Plan) -> Run:
    """The run as if each batch had been seen when it came to the main process."""
    return changed(run, "steps", "arrival_ns", walk(plan).available)


def changed(run: Run, table: str, column: str, values: list[int | None]) -> Run:
    """The run with one column replaced, in memory."""
    rows = run.table(table)
    at = rows.schema.get_field_index(column)
    run._tables[table] = rows.set_column(at, column, pa.array(values, type=pa.int64()))
    return run


def times(low: int, high: int, size: int = 7) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=size, max_size=size)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Random loaders and loops. Times come from a seed, so that shrinking makes no two events coincide."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def up_to(ms: int, size: int) -> list[int]:
        return [int(t) for t in rng.integers(1, ms * MS, size)]

    workers = draw(st.integers(0, 5))
    pinned = draw(st.booleans())
    return Plan(
        batches=draw(st.integers(2, 40)),
        warmup=0,
        workers=workers,
        prefetch=draw(st.integers(1, 4)),
        pin_memory=pinned,
        synchronises=draw(st.booleans()),
        queue_depth=draw(st.integers(1, 3)),
        stages={"read": up_to(40, 7), "decode": up_to(60, 11)},
        transfer=up_to(9, 7) if workers else 0,
        pin=up_to(draw(st.sampled_from([1, 20, 60])), 5) if pinned and workers else 0,
        copy=up_to(draw(st.sampled_from([1, 20])), 7),
        compute=up_to(draw(st.sampled_from([5, 30, 90])), 7),
        main=up_to(draw(st.sampled_from([1, 40])), 3),
        startup_ns=0,
    )


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans())
def test_the_walk_is_the_critical_path(plan: Plan) -> None:
    with TemporaryDirectory() as directory:
        run = load(make_run(Path(directory) / "run", plan, machine=GPU))
        found = walked(with_arrivals(run, plan))
    expected = oracle.critical_owners(plan)
    assert +found == +expected


def sums_exactly(run: Run) -> None:
    found = attribute(run)
    if found is None:
        return
    for ledger in [found.whole, *found.moving(max(1, found.window.wall_ns // 7))]:
        assert sum(ledger.ledger_ns.values()) == ledger.window.wall_ns
        assert sum(ledger.path_ns.values()) == ledger.window.wall_ns
        assert min([*ledger.ledger_ns.values(), *ledger.path_ns.values()], default=0) >= 0
        assert sum(ledger.storage_split_ns.values()) == ledger.ledger_ns.get("storage", 0)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), epochs=st.integers(1, 3), warmup=st.integers(0, 9), device=st.booleans())
def test_both_views_sum_to_the_wall(plan: Plan, epochs: int, warmup: int, device: bool) -> None:
    plan = Plan(
        **{
            **plan.__dict__,
            "epochs": epochs,
            "warmup": warmup,
            "startup_ns": 30 * MS,
            "accelerator": "emulated" if device else "none",
        }
    )
    with TemporaryDirectory() as directory:
        sums_exactly(load(make_run(Path(directory) / "run", plan)))


BATCHES = ("dispatch_ns", "start_ns", "finish_ns", "cpu_ns", "runq_ns", "major_faults", "device_bytes")
STEPS = ("request_ns", "take_ns")
MAYBE = (
    "arrival_ns", "launch_ns", "copy_start_ns", "copy_end_ns",
    "compute_start_ns", "compute_end_ns", "device_wait_ns",
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, dict[str, list[int | None]]]:
    """Rows that no loader would write: any time may be missing, late or in the wrong order."""
    n = draw(st.integers(1, 25))
    maybe = st.one_of(st.none(), st.integers(ORIGIN_NS, ORIGIN_NS + 200))
    keys = {
        "loader": draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)),
        "epoch": draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)),
        "seq": list(range(n)),
    }
    batches = {name: draw(st.lists(maybe, min_size=n, max_size=n)) for name in BATCHES}
    begin = draw(st.lists(st.integers(ORIGIN_NS, ORIGIN_NS + 100), min_size=n, max_size=n))
    steps = {name: draw(st.lists(maybe, min_size=n, max_size=n)) for name in MAYBE}
    stages = {"stage": ["read", "getitem", "decode"], "wall_ns": draw(times(0, 90, 3)), "seq": [0, 0, n - 1]}
    return {
        "batches": {**keys, "worker": draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n)), **batches},
        "steps": {
            **keys,
            **steps,
            "step": list(range(n)),
            "request_ns": begin,
            "take_ns": [at + draw(st.integers(0, 60)) for at in begin],
            "warmup": draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        },
        "stages": {"loader": [0] * 3, "epoch": [0] * 3, "scope": [0, 0, 1], **stages},
    }


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables=graphs(), workers=st.integers(0, 4), in_order=st.booleans(), synchronises=st.booleans())
def test_any_record_sums_to_its_wall(
    tables: dict[str, dict[str, list[int | None]]], workers: int, in_order: bool, synchronises: bool
) -> None:
    loaders = [{"id": i, "workers": workers, "prefetch": 2, "in_order": in_order} for i in range(2)]
    meta = {"loaders": loaders, "accelerator": {"synchronises": synchronises, "queue_depth": 2}}
    with TemporaryDirectory() as directory:
        writer = TraceWriter(Path(directory) / "run", meta)
        for name, columns in tables.items():
            assert set(columns) <= set(TABLES[name].names)
            writer.append(name, columns)
        writer.close("complete")
        sums_exactly(load(Path(directory) / "run"))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_partial_run_sums_to_what_is_left_of_it(tmp_path: Path, workers: int) -> None:
    writer_meta = {"status": "running", "pid": 2**22 + 1}
    run = load(make_run(tmp_path / "run", Plan(workers=workers), **writer_meta))
    run.table("batches")
    run._tables["batches"] = run.table("batches").slice(0, 31)
    ends = run.table("steps")["compute_end_ns"].to_pylist()
    sums_exactly(changed(run, "steps", "compute_end_ns", [*ends[:50], *[None] * 10]))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_dispatches_that_were_not_seen_change_no_path(tmp_path: Path, workers: int) -> None:
    plan = Plan(workers=workers, stages={"decode": [9 * MS, 70 * MS, 20 * MS]}, compute=25 * MS)
    run = load(make_run(tmp_path / "run", plan))
    seen = walked(run)
    assert walked(changed(run, "batches", "dispatch_ns", [None] * plan.batches)) == seen
