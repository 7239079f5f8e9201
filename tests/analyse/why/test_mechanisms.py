"""Each mechanism on a made run that shows it, at its edges, and on runs that must not be called so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.causes import Finding
from pipeprof.analyse.choice import candidates, is_useless
from pipeprof.analyse.sentence import reason
from pipeprof.analyse.verdict import Verdict
from pipeprof.analyse.why.explain import explained
from pipeprof.analyse.why.observed import Observed
from pipeprof.vocabulary import mechanisms
from tests.factory import MS, US, Counted, Plan, S, Sampled, loader_meta, make_run, walk
from tests.unprobed_runs import unprobe, unprobe_loop, with_column

pytestmark = pytest.mark.usefixtures("of_any_length")

SAMPLES = 40 * 32
OWNER_NS, MAKING_NS = 40 * 60 * MS, 40 * 61 * MS
WORK = Plan(batches=40, stages={"getitem": 60 * MS, "collate": MS}, spans_every=0)
"""Two workers whose `__getitem__` is what the accelerator waits for."""
READ = replace(WORK, stages={"read": 60 * MS, "collate": MS})
DECODE = replace(WORK, stages={"decode": 60 * MS, "collate": MS})
SAMPLE_BYTES = 3 * 224 * 224 * 4
BATCH_BYTES = 32 * SAMPLE_BYTES
TWO_CORES = {"cpu_count": 2, "usable_cores": 2, "memory_bytes": 16 << 30}
FOUR_CORES = {"cpu_count": 4, "usable_cores": 4, "memory_bytes": 16 << 30}
DATA, TRAIN = "/home/me/project/data.py", "/home/me/project/train.py"


@dataclass(frozen=True)
class Case:
    """A run, and the mechanism that its verdict has to name; None for none."""

    name: str
    plan: Plan
    mechanism: str | None
    counted: Mapping[str, int] = field(default_factory=dict)
    """Of worker 0."""
    in_main: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[Counted, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


def opens(first: int, again: int, share: float) -> dict[str, int]:
    return {
        "open.count": first + again,
        "open.repeated": again,
        "open.repeated_parse_ns": round(share * OWNER_NS),
    }


def rows_of(per_sample: float, share: float) -> dict[str, int]:
    return {"decode.rows": round(per_sample * SAMPLES), "decode.rows_ns": round(share * OWNER_NS)}


def decoded(per_sample: int, pixels: int = 250_000) -> dict[str, int]:
    """Pictures decoded, of which neither crop nor resize was seen."""
    return {"decode.pictures": per_sample * SAMPLES, "decode.pixels": per_sample * SAMPLES * pixels}


def pictures(decoded: int, left: int, shrunk: int = SAMPLES) -> dict[str, int]:
    return {
        "decode.pictures": SAMPLES,
        "decode.pixels": SAMPLES * decoded,
        "shrink.pictures": shrunk,
        "shrink.pixels": shrunk * left,
    }


def connected(handshake_share: float, first_share: float, later: int = 0) -> dict[str, int]:
    """A connection a sample; of later answers on kept connections each takes as long as a first one."""
    first_ns = round(first_share * MAKING_NS)
    return {
        "connect.count": SAMPLES,
        "connect.ns": round(handshake_share * MAKING_NS),
        "connect.first_answers": SAMPLES,
        "connect.first_answer_ns": first_ns,
        "socket.later_answers": later,
        "socket.later_answer_ns": first_ns * later // SAMPLES,
    }


def looks(name: str, values: Iterable[int], epoch: int = 0, worker: int = 0) -> tuple[Counted, ...]:
    return tuple(Counted(name, value, worker, epoch) for value in values)


def pool(threads: int, helper_cpu_ns: int, **changes: Any) -> tuple[Plan, dict[str, int]]:
    plan = replace(WORK, batch_columns={"helper_cpu_ns": helper_cpu_ns}, **changes)
    return plan, {"level.threads": threads + 4, "level.pool.torch": threads}


def grown(bytes_grown: int, level: str = "level.allocated_bytes") -> tuple[Counted, ...]:
    return tuple(
        row
        for epoch in range(3)
        for worker in range(2)
        for row in looks(level, (100_000_000, 100_000_000 + bytes_grown), epoch, worker)
    )


def items(*streams: Iterable[int]) -> tuple[Counted, ...]:
    return tuple(
        Counted("stream.item", digest, worker) for worker, stream in enumerate(streams) for digest in stream
    )


def host_body(host_ns: int, torch_ns: int) -> Plan:
    host = ((TRAIN, 3, "pack"), ("/usr/lib/python3.11/json/__init__.py", 231, "dumps"))
    step = ((TRAIN, 9, "main"), ("/env/lib/python3.11/site-packages/torch/nn/modules/module.py", 1, "call"))
    sampled = (Sampled("main", host, host_ns), Sampled("main", step, torch_ns))
    return Plan(batches=40, accelerator="none", compute=0, copy=0, main=40 * MS, lines=sampled)


def held_up(stage: str, waited_ns: int) -> dict[str, int]:
    """The GIL was waited for in a stage of the main process, while a thread counted."""
    stack = f"/usr/lib/python3.11/threading.py\t982\tThread.run\n{TRAIN}\t30\tcount"
    return {f"gil.wait_ns.{stage}": waited_ns, f"gil.held_ns.{stage}\nmetrics\n{stack}": waited_ns}


INLINE = Plan(batches=40, workers=0, stages={"getitem": 60 * MS, "collate": MS}, spans_every=0)
"""The loop makes its batches itself."""


def handed_over(transfer_ns: int, locked: bool, step: str = "pickled") -> Plan:
    """Batches are collated in 50 ms and handed over in `transfer_ns`.

    `locked`: a batch is pickled, or received, when its worker has collated the next one; else at once.
    """
    stages, late = {"collate": 50 * MS}, MS // 10
    plan = Plan(batches=60, prefetch=4, stages=stages, transfer=transfer_ns, compute=MS, spans_every=0)
    made, last = walk(plan), 59
    freed = [made.finish[min(k + plan.workers, last)] if locked else made.finish[k] for k in range(last + 1)]
    left = freed if step == "pickled" else made.finish
    pickled, sent = ([each + n * late for each in left] for n in (1, 2))
    way = {"pickled_ns": pickled, "sent_ns": sent, "receive_start_ns": sent, "received_ns": made.available}
    return replace(plan, step_columns=way)


EPOCHS = replace(WORK, batches=20, epochs=3)
LOST = replace(EPOCHS, stages={"getitem": 30 * MS, "decode": 35 * MS}, startup_ns=600 * MS, compute=2 * MS)
"""Starting workers takes longer than each stage, and less than all."""
CHEAP = replace(WORK, batch_size=512, compute=MS, stages={"getitem": 5 * MS, "collate": MS})
SAMPLER = replace(WORK, stages={"getitem": MS}, compute=20 * MS, main=40 * MS, synchronises=True)
MAIN_NS = 35 * 40 * MS
SHORT = replace(WORK, batches=2, epochs=15, stages={"getitem": 5 * MS}, startup_ns=200 * MS)
STARTS = replace(WORK, batches=10, epochs=5, stages={"getitem": 5 * MS}, startup_ns=900 * MS)


def started(init_ns: int = 0, process_ns: int = 700 * MS) -> dict[str, int]:
    return {"startup.process_ns": 10 * process_ns, "startup.init_fn_ns": 10 * init_ns}


CASES = (
    Case("an archive is opened for each sample", WORK, "reopened", opens(2, SAMPLES, 0.6)),
    Case("at the edge: half of the owner", WORK, "reopened", opens(2, SAMPLES, 0.5)),
    Case("many opens that are cheap", WORK, None, opens(2, SAMPLES, 0.45)),
    Case("files of one sample each, second epoch", WORK, None, opens(SAMPLES, SAMPLES, 0.9)),
    Case("few opens that are slow", WORK, None, opens(2, SAMPLES // 4, 0.9)),
    Case(
        "collections",
        replace(WORK, batch_columns={"gc_ns": 35 * MS}),
        "gc",
        {"gc.ns.2": 35 * MS * 40, "gc.count.2": 40},
    ),
    Case("collections that cost nothing", replace(WORK, batch_columns={"gc_ns": MS}), None),
    Case("collections below half", replace(WORK, batch_columns={"gc_ns": 30 * MS}), None),
    Case("2 x 16 busy threads", pool(16, 60 * MS)[0], "threads", pool(16, 0)[1], meta={"machine": TWO_CORES}),
    Case("idle threads", pool(16, MS)[0], None, pool(16, 0)[1], meta={"machine": TWO_CORES}),
    Case("as many threads as cores", pool(4, 60 * MS)[0], None, pool(4, 0)[1]),
    Case("a pool that never ran", pool(16, 60 * MS)[0], None, {"level.threads": 4, "level.pool.torch": 16}),
    Case(
        "threads that were runnable at once",
        pool(16, 60 * MS)[0],
        "threads",
        {**pool(16, 0)[1], "level.threads_runnable": 3},
        meta={"machine": TWO_CORES},
    ),
    Case(
        "threads of which few were ever runnable",
        pool(16, 60 * MS)[0],
        None,
        {**pool(16, 0)[1], "level.threads_runnable": 2},
        meta={"machine": TWO_CORES},
    ),
    Case("half of the cores", WORK, None, {"level.affinity_cores": 2}, meta={"machine": FOUR_CORES}),
    Case("one of four cores", WORK, "affinity", {"level.affinity_cores": 1}, meta={"machine": FOUR_CORES}),
    Case(
        "a neighbour beside a full mask",
        WORK,
        None,
        {"level.affinity_cores": 4},
        meta={"machine": FOUR_CORES},
    ),
    Case(
        "a mask that is not used up",
        replace(WORK, batch_columns={"cpu_ns": 10 * MS}),
        None,
        {"level.affinity_cores": 1},
        meta={"machine": FOUR_CORES},
    ),
    Case("4,000 rows for one", WORK, "over-read", rows_of(4000, 0.9)),
    Case("a table read once", WORK, None, rows_of(100, 0.05)),
    Case("two rows for one, at the edge", WORK, "over-read", rows_of(2, 1.0)),
    Case("one row for one", WORK, None, rows_of(1, 1.0)),
    Case(
        "compressed files read from their start",
        WORK,
        "over-read",
        {"skip.bytes": 100 * 40 * BATCH_BYTES, "skip.ns": round(0.8 * OWNER_NS)},
    ),
    Case(
        "seeks that cost little",
        WORK,
        None,
        {"skip.bytes": 100 * 40 * BATCH_BYTES, "skip.ns": round(0.1 * OWNER_NS)},
    ),
    Case(
        "seeks that skip little",
        WORK,
        None,
        {"skip.bytes": 20 * BATCH_BYTES, "skip.ns": round(0.8 * OWNER_NS)},
    ),
    Case(
        "arrays unpacked for one of their rows",
        WORK,
        "over-read",
        {"decode.member_bytes": 100 * 40 * BATCH_BYTES, "decode.members_ns": round(0.8 * OWNER_NS)},
    ),
    Case(
        "arrays unpacked to be used",
        WORK,
        None,
        {"decode.member_bytes": 40 * BATCH_BYTES, "decode.members_ns": round(0.8 * OWNER_NS)},
    ),
    Case(
        "arrays unpacked quickly",
        WORK,
        None,
        {"decode.member_bytes": 100 * 40 * BATCH_BYTES, "decode.members_ns": round(0.1 * OWNER_NS)},
    ),
    Case(
        "files read five times",
        READ,
        "over-read",
        rows=looks("level.read_call_bytes", (0, 200 * BATCH_BYTES)),
    ),
    Case("files read twice", READ, None, rows=looks("level.read_call_bytes", (0, 80 * BATCH_BYTES))),
    Case("8 megapixels for a crop", DECODE, "over-decode", pictures(8_000_000, 50_000)),
    Case("four pixels for one, at the edge", DECODE, "over-decode", pictures(400_000, 100_000)),
    Case("three pixels for one", DECODE, None, pictures(300_000, 100_000)),
    Case("few pixels", DECODE, None, pictures(10_000, 1_000)),
    Case("frames on the way to one", DECODE, "over-decode", {**decoded(1), "decode.frames": 64 * SAMPLES}),
    Case("one frame for each", DECODE, None, {**decoded(1), "decode.frames": SAMPLES}),
    Case("pictures that no sample holds", DECODE, "over-decode", decoded(80)),
    Case("a clip of many pictures", DECODE, None, decoded(80, pixels=SAMPLE_BYTES // 80)),
    Case("few of the pictures", DECODE, None, pictures(8_000_000, 50_000, SAMPLES // 4)),
    Case("read-ahead", replace(READ, batch_columns={"device_bytes": 5 * BATCH_BYTES}), "read-ahead"),
    Case("reads as asked", replace(READ, batch_columns={"device_bytes": 3 * BATCH_BYTES // 2}), None),
    Case("samples of 12 µs", CHEAP, "per-sample"),
    Case("samples of 30 µs", replace(CHEAP, stages={"getitem": 15 * MS, "collate": MS}), None),
    Case(
        "few samples",
        replace(CHEAP, batch_size=32, stages={"getitem": 500 * US, "collate": 100 * US}, compute=50 * US),
        None,
    ),
    Case("a big batch that is slow to hand over", replace(CHEAP, transfer=80 * MS), None),
    Case("a sampler", SAMPLER, "sampler", in_main={"sampler.ns.Weighted": round(0.6 * MAIN_NS)}),
    Case("a cheap sampler", SAMPLER, None, in_main={"sampler.ns.Weighted": round(0.4 * MAIN_NS)}),
    Case(
        "a new iterator for each step",
        SHORT,
        "iterator-per-step",
        meta={"loaders": [loader_meta(SHORT, samples=100_000)]},
    ),
    Case("a small data set", SHORT, None, meta={"loaders": [loader_meta(SHORT, samples=64)]}),
    Case("worker_init_fn", STARTS, "start-up", started(init_ns=800 * MS, process_ns=100 * MS)),
    Case("process start, each epoch", STARTS, "start-up", started()),
    Case("their shutdown", replace(STARTS, shutdown_ns=900 * MS), "start-up", started(process_ns=300 * MS)),
    Case("a large data set", STARTS, "start-up", started(), {"startup.written_bytes": 10 * 400_000_000}),
    Case("a cache that is lost", EPOCHS, "lost-cache", rows=grown(100_000_000)),
    Case("workers that grew a little", EPOCHS, None, rows=grown(10_000_000)),
    Case(
        "a cache that is lost, beside workers that start slowly",
        LOST,
        "lost-cache",
        rows=grown(100_000_000),
    ),
    Case(
        "workers that stay",
        EPOCHS,
        None,
        rows=grown(100_000_000),
        meta={"loaders": [loader_meta(EPOCHS, persistent_workers=True)]},
    ),
    Case("one epoch", WORK, None, rows=grown(100_000_000)[:4]),
    Case("duplicates", WORK, "duplicates", rows=items(range(50), range(50))),
    Case("duplicates of a worker that has just begun", WORK, "duplicates", rows=items(range(64), range(4))),
    Case("all but one of the same", WORK, "duplicates", rows=items(range(64), range(1, 65))),
    Case("half of them, at the edge", WORK, "duplicates", rows=items(range(64), range(32, 96))),
    Case("less than half of them", WORK, None, rows=items(range(64), range(33, 97))),
    Case(
        "one sample that all deliver",
        WORK,
        None,
        rows=items(*([0, *range(w, w + 9)] for w in range(10, 90, 10))),
    ),
    Case("a stream that is split", WORK, None, rows=items(range(50), range(50, 100))),
    Case(
        "connections", WORK, "connections", {"connect.count": SAMPLES, "connect.ns": round(0.6 * MAKING_NS)}
    ),
    Case("cheap connections", WORK, None, {"connect.count": SAMPLES, "connect.ns": round(0.3 * MAKING_NS)}),
    Case("connections whose server greets", WORK, "connections", connected(0.01, 0.8)),
    Case("a server that answers slowly, always", WORK, None, connected(0.01, 0.8, later=SAMPLES)),
    Case("one connection", WORK, None, {"connect.count": 2, "connect.ns": round(0.9 * MAKING_NS)}),
    Case("packing in the loop", host_body(int(1.0 * S), int(0.4 * S)), "host-body"),
    Case("the step itself", host_body(int(0.05 * S), int(1.35 * S)), None),
    Case(
        "the loop waits for another thread's Python",
        host_body(int(0.2 * S), int(1.2 * S)),
        "main-gil",
        in_main=held_up("main", int(0.7 * S)),
    ),
    Case(
        "the loop waits for it less than it works",
        host_body(int(1.0 * S), int(0.4 * S)),
        "host-body",
        in_main=held_up("main", int(0.3 * S)),
    ),
    Case(
        "a batch's receiver waits for another thread's Python",
        handed_over(90 * MS, locked=False),
        "main-gil",
        in_main=held_up("wait", S),
    ),
    Case(
        "a batch's receiver waits for it little",
        handed_over(90 * MS, locked=False),
        None,
        in_main=held_up("wait", int(0.5 * S)),
    ),
    Case(
        "the pin thread waits for the loop",
        handed_over(90 * MS, locked=False),
        "main-gil",
        in_main=held_up("pin", S),
    ),
    Case(
        "two threads wait for it at one time, each little",
        handed_over(90 * MS, locked=False),
        None,
        in_main=held_up("pin", int(0.5 * S)) | held_up("wait", int(0.5 * S)),
    ),
    Case(
        "the loop makes its batches and waits for another thread's Python",
        INLINE,
        "main-gil",
        in_main=held_up("getitem", 40 * 40 * MS),
    ),
    Case("workers are not held up by the main process", WORK, None, in_main=held_up("getitem", OWNER_NS)),
    Case("the GIL is held", handed_over(55 * MS, locked=True), "gil"),
    Case("a big batch that is slow to send", handed_over(90 * MS, locked=False), None),
)


def verdict_of(case: Case, directory: Path) -> Verdict:
    counters = [Counted(name, value, worker=0) for name, value in case.counted.items()]
    counters += [Counted(name, value, worker=-1) for name, value in case.in_main.items()]
    plan = replace(case.plan, counters=(*counters, *case.rows))
    return load(make_run(directory / "run", plan, **case.meta)).verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mechanism_is_named_where_its_counter_shows_it_and_nowhere_else(tmp_path: Path, case: Case) -> None:
    verdict = verdict_of(case, tmp_path)
    assert verdict.mechanism == case.mechanism, verdict.sentence
    if verdict.shown is None:
        assert verdict.mechanism_share is None
        return
    assert verdict.shown.explains >= mechanisms.EXPLAINS
    assert verdict.fix == verdict.shown.fix.word and verdict.shown.fix in verdict.shown.mechanism.fixes
    assert verdict.shown.sentence in verdict.sentence
    assert "{" not in verdict.sentence and "not observed" not in verdict.sentence


OF_THE_LOOP = [case for case in CASES if case.in_main or case.plan.lines]


@pytest.mark.parametrize("case", OF_THE_LOOP, ids=lambda case: case.name)
def test_steps_that_were_not_looked_at_count_as_much_as_the_others(tmp_path: Path, case: Case) -> None:
    """Lines and waits for the GIL of the loop's thread are of its probed steps; what they explain is of all.

    The thread that pins is sampled all along: its waits are compared with those of the loop's thread.
    """
    whole = verdict_of(case, tmp_path)
    thinned = tmp_path / "run"
    if case.plan.workers == 0:
        thinned = unprobe(tmp_path / "run", tmp_path / "some", every=5, block=4)
    verdict = load(unprobe_loop(thinned)).verdict
    assert (verdict.cause, verdict.mechanism) == (whole.cause, whole.mechanism), verdict.sentence
    if whole.shown is not None and verdict.shown is not None:
        assert verdict.shown.explains == pytest.approx(whole.shown.explains, rel=0.1)


@pytest.mark.parametrize(("without", "mechanism"), [(0.8, "per-sample"), (1.0, None)])
def test_probing_is_not_what_a_sample_costs(tmp_path: Path, without: float, mechanism: str | None) -> None:
    """Samples take 24 µs when they are probed, and `without` of that when they are not."""
    plan = replace(CHEAP, batches=120, stages={"getitem": 11 * MS, "collate": MS})
    run = unprobe(make_run(tmp_path / "run", plan), tmp_path / "some", every=4, block=2)
    rows = pq.read_table(run / "batches.parquet")
    columns = (rows[name].to_pylist() for name in ("start_ns", "finish_ns", "unprobed"))
    ends = [
        start + round((end - start) * (without if gone else 1))
        for start, end, gone in zip(*columns, strict=True)
    ]
    pq.write_table(with_column(rows, "batches", "finish_ns", ends), run / "batches.parquet")
    assert load(run).verdict.mechanism == mechanism


def test_a_mechanism_explains_a_share_of_its_owner(tmp_path: Path) -> None:
    """Of the kinds whose share follows from what is counted, none is taken for the whole."""
    shares = {
        "an archive is opened for each sample": 0.6,
        "one of four cores": 1 / 2,  # two workers take turns
        "a new iterator for each step": 1 - 2 / 3125,
        "all but one of the same": 63 / 64,
    }
    for number, case in enumerate(case for case in CASES if case.name in shares):
        shown = verdict_of(case, tmp_path / str(number)).shown
        assert shown is not None and shown.explains == pytest.approx(shares[case.name]), case.name


def test_a_loop_that_draws_indices_is_not_told_of_its_own_code(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "a sampler")
    verdict = verdict_of(case, tmp_path)
    assert (verdict.cause, verdict.detail, verdict.hot) == ("main", "in-sampler", ())
    assert "the sampler, which draws the indices" in verdict.statement.headline


def test_programs_get_the_figures_that_show_a_mechanism(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.mechanism == "reopened")
    verdict = verdict_of(case, tmp_path)
    evidence = verdict.as_dict()["verdict"]["evidence"]
    assert evidence == {"opens": "once", "open_ns": "1.12 ms"}
    assert all(text in verdict.sentence for text in evidence.values())


@pytest.mark.parametrize(
    ("method", "imports_ms", "part"),
    [
        ("spawn", 600, "imports and unpickling in its process"),
        ("spawn", 100, "the start of its process"),
        ("fork", 600, "the start of its process"),
    ],
)
def test_the_part_of_a_start_is_named(tmp_path: Path, method: str, imports_ms: int, part: str) -> None:
    counted = {**started(), "startup.imports_ns": 10 * imports_ms * MS}
    meta = {"loaders": [loader_meta(STARTS, start_method=method)]}
    verdict = verdict_of(Case("a start", STARTS, "start-up", counted, meta=meta), tmp_path)
    assert (verdict.mechanism, verdict.fix) == ("start-up", "persistent-workers")
    assert f"most of it {part}" in verdict.sentence


def test_the_shutdown_of_workers_is_a_part_of_their_start(tmp_path: Path) -> None:
    verdict = verdict_of(next(case for case in CASES if case.name == "their shutdown"), tmp_path)
    assert verdict.fix == "persistent-workers"
    assert "takes 1.20 s, most of it the shutdown at the end of an epoch" in verdict.sentence


def test_every_mechanism_that_takes_time_has_a_case() -> None:
    assert {case.mechanism for case in CASES} - {None} == {
        each.word for each in mechanisms.MECHANISMS if each.is_stall
    }


def test_a_lost_cache_blames_what_is_made_again(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", replace(LOST, counters=grown(100_000_000))))
    assert found.ledger is not None
    assert max(found.ledger.ledger_ns, key=found.ledger.ledger_ns.__getitem__) == "startup"
    assert (found.verdict.cause, found.verdict.fix) == ("decode", "persistent-workers")
    without = load(make_run(tmp_path / "without", LOST)).verdict
    assert (without.cause, without.mechanism) == ("startup", None)


@pytest.mark.parametrize(
    ("level", "grown_bytes", "lost"),
    [
        ("allocated_bytes", 100_000, False),
        ("allocated_bytes", 3_700_000, True),
        ("private_bytes", 3_700_000, False),
        ("private_bytes", 5_000_000, True),
    ],
)
def test_a_small_cache_is_told_from_what_buffers_take(
    tmp_path: Path, level: str, grown_bytes: int, lost: bool
) -> None:
    """What was allocated and kept is exact; resident memory moves by the size of the buffers."""
    plan = replace(LOST, counters=grown(grown_bytes, f"level.{level}"), batch_columns={"bytes": 400_000})
    assert (load(make_run(tmp_path / "run", plan)).verdict.mechanism == "lost-cache") is lost


def test_samples_cost_what_they_cost_beside_no_other_program(tmp_path: Path) -> None:
    """Epochs are compared by their quickest batches, without waiting for a core."""
    found = load(make_run(tmp_path / "run", replace(EPOCHS, stages={"getitem": 32 * MS})))
    table = found.run.table("batches")
    rows = zip(table["epoch"].to_pylist(), table["seq"].to_pylist(), strict=True)
    crowd = [(40 * MS, 20 * MS * (seq % 2)) if epoch == 0 else (0, 0) for epoch, seq in rows]
    late = {"runq_ns": [waited for waited, _ in crowd], "finish_ns": [sum(each) for each in crowd]}
    for name, later in late.items():
        at = table.schema.get_field_index(name)
        values = [value + more for value, more in zip(table[name].to_pylist(), later, strict=True)]
        table = table.set_column(at, table.schema.field(at), pa.array(values, type=pa.int64()))
    found.run._tables["batches"] = table
    assert found.attribution is not None and found.facts is not None
    costs = Observed.of(found.run, found.attribution, found.facts, "decode").cost_by_epoch()
    assert costs == dict.fromkeys(range(3), MS)


def test_resident_memory_is_not_asked_where_allocations_are_told(tmp_path: Path) -> None:
    counted = (*grown(0), *grown(100_000_000, "level.private_bytes"))
    assert load(make_run(tmp_path / "run", replace(LOST, counters=counted))).verdict.mechanism is None


@pytest.mark.parametrize(
    ("method", "made_ns", "pickles"),
    [("spawn", 400 * MS, True), ("spawn", 50 * MS, False), ("fork", 400 * MS, False)],
)
def test_workers_that_are_started_one_by_one_are_sent_too_much(
    tmp_path: Path, method: str, made_ns: int, pickles: bool
) -> None:
    """Workers that stay are sent it once, for one argument; a lighter data set comes after that."""
    sent = {"startup.make_ns": 10 * made_ns, "startup.written_bytes": 10 * 8_000_000}
    meta = {"loaders": [loader_meta(STARTS, start_method=method)]}
    verdict = verdict_of(Case("sent", STARTS, "start-up", started(), sent, meta=meta), tmp_path)
    assert verdict.mechanism == "start-up"
    assert verdict.fix == "persistent-workers"
    assert ("pickling" in verdict.sentence) == pickles
    assert verdict.shown is not None
    assert ("lighter-dataset" in [fix.word for fix in verdict.shown.also]) == pickles


def test_sharing_by_name_bears_on_a_gil_that_batches_are_received_by(tmp_path: Path) -> None:
    """What waits to be pickled needs the worker's GIL however it is shared."""
    words = {}
    for step in ("pickled", "received"):
        found = load(make_run(tmp_path / step, handed_over(55 * MS, locked=True, step=step)))
        assert found.verdict.mechanism == "gil" and found.facts is not None
        assert f"to be {step}" in found.verdict.sentence
        assert found.verdict.fix == "cheaper-collate"
        words[step] = candidates(found.verdict.finding, found.facts)
        assert is_useless("lighter-transfer", found.verdict.finding, found.facts), "it is no matter of bytes"
    assert "file-system-sharing" in words["received"] and "file-system-sharing" not in words["pickled"]


def test_the_code_of_a_stream_is_its_iterator(tmp_path: Path) -> None:
    stream = {"loaders": [loader_meta(WORK, iterable=True, splits_stream=True)]}
    verdict = load(make_run(tmp_path / "run", WORK, **stream)).verdict
    assert verdict.cause == "stage:iter" and "__iter__" in verdict.sentence
    assert load(make_run(tmp_path / "map", WORK)).verdict.cause == "stage:getitem"


def test_a_mask_is_told_with_the_import_that_left_it_behind(tmp_path: Path) -> None:
    bound = Counted("level.affinity_cores", 1)
    plan = replace(WORK, counters=(bound,), happened=(("bound", "the import of fastlib"),))
    verdict = load(make_run(tmp_path / "import", plan, machine=FOUR_CORES)).verdict
    assert "bound to 1 of 4 cores since the import of fastlib, or soon after." in verdict.sentence
    began = {**FOUR_CORES, "usable_cores": 1}
    verdict = load(make_run(tmp_path / "start", replace(WORK, counters=(bound,)), machine=began)).verdict
    assert "cores, as the program itself was from its start." in verdict.sentence


def test_time_that_the_table_calls_otherwise_is_said_to_be(tmp_path: Path) -> None:
    verdict_of(Case("a slow server", WORK, None, {"connect.count": 2, "connect.ns": MAKING_NS}), tmp_path)
    found = load(tmp_path / "run")
    assert found.attribution is not None and found.facts is not None
    observed = Observed.of(found.run, found.attribution, found.facts, "blocked")
    finding, _ = explained(Finding("blocked", owner="blocked"), observed)
    assert (finding.cause, finding.charged) == ("storage-network", "blocked")
    verdict = replace(found.verdict, cause=finding.cause, charged=finding.charged)
    assert "In the table this is “blocking calls”." in reason(verdict, found.facts).evidence


@pytest.mark.parametrize(("made_ns", "blamed"), [(85, "stage:getitem"), (75, "transfer")])
def test_of_two_about_as_large_the_one_with_a_reason_is_blamed(
    tmp_path: Path, made_ns: int, blamed: str
) -> None:
    found = load(make_run(tmp_path / "run", CHEAP))
    assert found.attribution is not None and found.facts is not None
    observed = Observed.of(found.run, found.attribution, found.facts, "transfer")
    observed = replace(observed, ledger_ns={"transfer": 100, "stage:getitem": made_ns})
    finding, _ = explained(Finding("transfer", owner="transfer"), observed)
    assert (finding.cause, finding.owner) == (blamed, blamed)
    assert (finding.shown is not None) == (blamed == "stage:getitem")
