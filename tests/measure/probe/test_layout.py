"""The layout of a record: what is written under a name comes back under it, in the run's tables."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeprof.measure.probe.layout import BATCH, COLLATE_NS, GETITEM_NS, SPAN, STAGE, Layout
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.measure.session.drain import Drained
from pipeprof.record.schema import TABLES

RECORDS = 4


def tables_of(write: Callable[[Slot], object]) -> dict[str, dict[str, list[Any]]]:
    """Columns, as lists, of what `write` has put into a slot."""
    ring = Ring(1, RECORDS)
    slot = Slot(ring.block, 0, RECORDS, 0)
    write(slot)
    drained = Drained()
    drained.add(SimpleNamespace(ring=ring, workers=1, loader_number=0, finished={}))  # type: ignore[arg-type]
    tables = {
        table: {name: values.tolist() for name, values in columns.items()}
        for table, columns in drained.tables().items()
    }
    del slot  # it is a view of the ring's memory
    ring.close()
    return tables


def put(slot: Slot, layout: Layout, **figures: int) -> None:
    """Append a record of `layout`, of epoch 5 and batch 7."""
    append = {BATCH: slot.put_batch, STAGE: slot.put_stage, SPAN: slot.put_span}[layout]
    assert append(0 if layout is BATCH else slot.name_id("decode"), 5, 7, **figures)


LAYOUTS = pytest.mark.parametrize(
    ("layout", "table"),
    [(BATCH, "batches"), (STAGE, "stages"), (SPAN, "spans")],
    ids=["batch", "stage", "span"],
)


@LAYOUTS
def test_each_figure_comes_back_under_its_name(layout: Layout, table: str) -> None:
    values = {name: 1000 + number for number, name in enumerate(layout.figures)}
    columns = tables_of(lambda slot: put(slot, layout, **values))[table]
    assert (columns["epoch"], columns["seq"]) == ([5], [7])
    held = set(TABLES[table].names) & set(values)
    assert held == set(values) - {GETITEM_NS, COLLATE_NS}
    flags = {name for name in held if pa.types.is_boolean(TABLES[table].field(name).type)}
    told = {name: [True if name in flags else values[name]] for name in held}
    assert {name: columns[name] for name in held} == told


@LAYOUTS
def test_a_figure_that_is_not_passed_is_null(layout: Layout, table: str) -> None:
    columns = tables_of(lambda slot: put(slot, layout))[table]
    held = set(TABLES[table].names) & set(layout.figures)
    assert {name: columns[name] for name in held} == {name: [None] for name in held}


def test_every_column_comes_from_somewhere() -> None:
    """A column is a figure, or the head and the place of the record give it. `shard` is rare and left out."""

    def write(slot: Slot) -> None:
        for layout in (BATCH, STAGE, SPAN):
            put(slot, layout)

    tables = tables_of(write)
    assert set(TABLES["batches"].names) - set(tables["batches"]) == {"shard"}
    assert set(TABLES["stages"].names) == set(tables["stages"])
    assert set(TABLES["spans"].names) == set(tables["spans"])


def test_stages_inside_a_batchs_record_have_rows_of_their_own() -> None:
    def write(slot: Slot) -> None:
        slot.put_batch(0, 5, 7, samples=4, getitem_ns=30, collate_ns=10)

    stages = tables_of(write)["stages"]
    rows = zip(stages["stage"], stages["wall_ns"], stages["count"], stages["cpu_ns"], strict=True)
    assert sorted(rows) == [("collate", 10, 1, None), ("getitem", 30, 4, None)]


def test_a_misspelt_figure_is_an_error() -> None:
    with pytest.raises(TypeError, match="finsh_ns"):
        tables_of(lambda slot: slot.put_batch(0, 0, 0, finsh_ns=1))
