"""The walk finds the critical path that the run was made with, and leaves no nanosecond over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeprof.analyse.ledger.attribution import Attribution, Ledger, attribute
from pipeprof.analyse.ledger.walk import MAKING, critical_path
from pipeprof.record.reader import Run, load
from pipeprof.record.schema import TABLES
from pipeprof.timeline import Window, measured_window, read_timeline, shapes_of
from pipeprof.vocabulary.owners import FIXED
from tests.analyse.ledger import oracle
from tests.factory import MS, ORIGIN_NS, Plan, begin, make_run, walk

GPU = {"gpu_names": ["made"], "usable_cores": 8, "cpu_count": 8}
"""`machine` of run.json: torch starts its pin thread only beside a GPU."""


def walked(run: Run) -> Counter[str]:
    """Owners of the walk's pieces, the making of batches as one."""
    timeline = read_timeline(run)
    window = measured_window(timeline)
    assert window is not None
    path = critical_path(timeline, shapes_of(run, timeline), window)
    assert (path.bounds[0], path.bounds[-1]) == (window.start_ns, window.end_ns)
    assert (np.diff(path.bounds) > 0).all()
    names = [*FIXED, oracle.MAKING]
    assert len(FIXED) == MAKING
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


def windows(found: Attribution, width_ns: int, every_ns: int | None = None) -> Iterator[Ledger]:
    """The ledgers of windows all through a run, side by side or one each `every_ns`; the last is cut."""
    for start in range(found.window.start_ns, found.window.end_ns, every_ns or width_ns):
        yield found.ledger(Window(start, start + width_ns))


def sums_exactly(run: Run) -> None:
    found = attribute(run)
    if found is None:
        return
    for ledger in [found.whole, *windows(found, max(1, found.window.wall_ns // 7))]:
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
        writer = begin(Path(directory) / "run", meta)
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
    sums_exactly(changed(run, "steps", "compute_end_ns", [*ends[:50], *[None] * (len(ends) - 50)]))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_dispatches_that_were_not_seen_change_no_path(tmp_path: Path, workers: int) -> None:
    plan = Plan(workers=workers, stages={"decode": [9 * MS, 70 * MS, 20 * MS]}, compute=25 * MS)
    run = load(make_run(tmp_path / "run", plan))
    seen = walked(run)
    assert walked(changed(run, "batches", "dispatch_ns", [None] * plan.batches)) == seen


def test_the_body_of_the_last_step_is_the_loops(tmp_path: Path) -> None:
    """Without a device the window ends with the last step's body, not with the making of its batch."""
    plan = Plan(workers=0, accelerator="none", stages={"decode": 10 * MS}, compute=30 * MS, synchronises=True)
    found = attribute(load(make_run(tmp_path / "run", plan)))
    assert found is not None
    steps = plan.batches - plan.warmup
    assert found.whole.path_ns["decode"] == pytest.approx(steps * 10 * MS, abs=steps)


def locked_out(directory: Path, seen: bool = True, late: int = MS // 2, pickle_bytes: int = 500) -> Run:
    """Two workers make a batch in 30 ms; each is received `late` ns after its worker has made its next one.

    Where the way was `seen`, the record says when each batch was pickled, sent and received.
    """
    n, soon = 40, 500_000
    finish = [ORIGIN_NS + 30 * MS * (k // 2 + 1) + 15 * MS * (k % 2) for k in range(n + 2)]
    received = [finish[k + 2] + late for k in range(n)]
    keys = {"loader": [0] * n, "epoch": [0] * n, "seq": list(range(n))}
    way = {"pickled_ns": [at + soon for at in finish[:n]], "sent_ns": [at + 2 * soon for at in finish[:n]]}
    writer = begin(directory, {"loaders": [{"id": 0, "workers": 2, "prefetch": 3}], "machine": GPU})
    writer.append(
        "batches",
        {
            **keys,
            "worker": [k % 2 for k in range(n)],
            "dispatch_ns": [ORIGIN_NS if k < 6 else received[k - 6] for k in range(n)],
            "start_ns": [at - 30 * MS for at in finish[:n]],
            "finish_ns": finish[:n],
        },
    )
    steps = {"step": list(range(n)), "request_ns": [ORIGIN_NS, *received[:-1]], "take_ns": received}
    # the size of a batch's pickle is told by its worker's next one, which may come too late for the record
    sizes = [pickle_bytes if k % 2 else None for k in range(n)]
    seen_way = {**way, "sent_bytes": sizes, "received_ns": received} if seen else {}
    writer.append("steps", {**keys, **steps, **seen_way})
    writer.close("complete")
    return load(directory)


def test_a_batch_that_waits_for_its_workers_lock_waits_for_the_next_batch(tmp_path: Path) -> None:
    seen, unseen = (walked(locked_out(tmp_path / str(seen), seen)) for seen in (True, False))
    assert seen[oracle.MAKING] > 0.9 * seen.total()
    assert unseen["transfer"] > 0.9 * unseen.total()


def test_a_batch_that_its_worker_lets_go_inside_the_next_one_waits_for_it_too(tmp_path: Path) -> None:
    """The native call is over, and what is left of the making follows when the others have had the lock."""
    small, large = (
        walked(locked_out(tmp_path / str(size), late=-4 * MS, pickle_bytes=size)) for size in (500, 5 << 20)
    )
    assert small[oracle.MAKING] > 0.9 * small.total()
    assert large["transfer"] > 0.3 * large.total()  # unpickling as much is work


def test_a_batch_waits_for_the_one_that_is_received_before_it(tmp_path: Path) -> None:
    """The second of each two came first and waited for its worker's lock; `next` unpickles one at a time."""
    run = locked_out(tmp_path / "run", late=-4 * MS)
    received = run.table("steps")["received_ns"].to_pylist()
    swapped = [at if k % 2 else received[k + 1] + MS for k, at in enumerate(received)]
    taken = [swapped[k - k % 2] + (k % 2) * MS // 10 for k in range(len(swapped))]
    columns = {"received_ns": swapped, "take_ns": taken, "request_ns": [ORIGIN_NS, *taken[:-1]]}
    for column, values in columns.items():
        changed(run, "steps", column, values)
    found = walked(run)
    assert found[oracle.MAKING] > 0.9 * found.total()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_that_was_asked_for_inside_next_waits_for_no_earlier_epoch(
    tmp_path: Path, workers: int
) -> None:
    """torch asks for the next batch before `next` returns: a little before the take that made room for it."""
    plan = Plan(
        workers=workers, prefetch=1, epochs=2, batches=40, stages={"decode": 30 * MS}, compute=20 * MS
    )
    run = load(make_run(tmp_path / "run", plan))
    as_made = walked(run)
    width = workers * plan.prefetch
    earlier = [
        at - 50_000 if k % plan.batches >= width else at
        for k, at in enumerate(run.table("batches")["dispatch_ns"].to_pylist())
    ]
    assert walked(changed(run, "batches", "dispatch_ns", earlier)) == as_made


def test_a_reader_may_be_quicker_than_the_thread_that_notes_when_it_had_sent(tmp_path: Path) -> None:
    plan = Plan(workers=2, stages={"decode": 50 * MS}, transfer=MS)
    run = load(make_run(tmp_path / "run", plan))
    made = walk(plan)
    changed(changed(run, "steps", "sent_ns", made.sent), "steps", "received_ns", made.take)
    exact = walked(run)
    late = walked(changed(run, "steps", "sent_ns", [at + 2 * MS for at in made.sent]))
    assert exact[oracle.MAKING] > 0.9 * exact.total()
    assert late[oracle.MAKING] == exact[oracle.MAKING]
