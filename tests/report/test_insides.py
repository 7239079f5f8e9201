"""What a step is made of: read from its tables, and said by terminal, page and Perfetto."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeprof.analyse.analysis import analyse
from pipeprof.analyse.resources.makeup import Makeup, read_makeup
from pipeprof.record.reader import Run, load
from pipeprof.record.schema import TABLES
from pipeprof.report.page import html, workers
from pipeprof.report.page.where import where
from pipeprof.report.text import terminal
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, ORIGIN_NS, Plan, make_run
from tests.report.page.test_timeline import column


def made(directory: Path, kernels: list[dict[str, Any]] | None = None, parts: bool = True) -> Run:
    """A run of 20 steps, 4 of them warm-up, of which each is 3 ms forward, 6 backward and 1 optimiser."""
    plan = Plan(batches=20, warmup=4, happened=[("kernels_traced", "2 3")] if kernels else [])
    run = load(make_run(directory, plan))
    rows = []
    for step in range(20 if parts else 0):
        at = ORIGIN_NS + step * 20 * MS
        for part, length in (("backward", 6), ("forward", 3), ("optimizer", 1)):
            slow = 10 if step < 4 else 1
            rows.append({"step": step, "part": part, "start_ns": at, "end_ns": at + slow * length * MS})
            at += slow * length * MS
    run._tables["parts"] = pa.Table.from_pylist(rows, schema=TABLES["parts"])
    run._tables["kernels"] = pa.Table.from_pylist(kernels or [], schema=TABLES["kernels"])
    return run


def kernel(name: str, at_ms: int, length_ms: int, device: int | None = 0, stream: int = 7) -> dict[str, Any]:
    start = ORIGIN_NS + at_ms * MS
    return {
        "kernel": name, "start_ns": start, "wall_ns": length_ms * MS, "device": device, "stream": stream,
    }  # fmt: skip


KERNELS = [
    kernel("gemm", 200, 2),
    kernel("gemm", 205, 2),
    kernel("ncclDevKernel_AllReduce", 202, 1, stream=9),
]


def test_parts_are_averages_of_the_measured_steps(tmp_path: Path) -> None:
    makeup = read_makeup(made(tmp_path / "run"))
    assert [(part.name, part.step_ns, part.share) for part in makeup.parts] == [
        ("forward", 3 * MS, pytest.approx(0.3)),
        ("backward", 6 * MS, pytest.approx(0.6)),
        ("optimizer", 1 * MS, pytest.approx(0.1)),
    ]
    assert makeup.steps == 16
    assert makeup.kernels == ()
    assert makeup.collective_share is None


def test_kernels_are_summed_by_name_and_collectives_known(tmp_path: Path) -> None:
    makeup = read_makeup(made(tmp_path / "run", KERNELS))
    assert [(each.name, each.wall_ns, each.times) for each in makeup.kernels] == [
        ("gemm", 4 * MS, 2),
        ("ncclDevKernel_AllReduce", MS, 1),
    ]
    assert (makeup.traced_steps, makeup.on_device) == (2, True)
    assert makeup.collective_share == pytest.approx(0.2)


def test_a_run_that_knows_neither_says_neither(tmp_path: Path) -> None:
    run = load(make_run(tmp_path / "run", Plan(batches=20)))
    assert read_makeup(run) == Makeup()
    assert "A step:" not in said(run)


def said(run: Run) -> str:
    file = io.StringIO()
    terminal.show(Forecast(analyse(run)), None, file)
    return file.getvalue()


def test_the_terminal_says_it_in_two_lines(tmp_path: Path) -> None:
    text = " ".join(said(made(tmp_path / "run", KERNELS)).split())
    assert "A step: forward 30% (3.00 ms), backward 60% (6.00 ms), optimizer 10% (1.00 ms)" in text
    assert "Kernels of 2 steps: gemm 80%, ncclDevKernel_AllReduce 20%; collectives 20% of all" in text


def test_the_page_has_both_tables(tmp_path: Path) -> None:
    page = html.render(Forecast(analyse(made(tmp_path / "run", KERNELS))), with_source=False)
    assert "What a step is made of" in page
    assert "Kernels of 2 steps" in page
    assert "ncclDevKernel_AllReduce" in page


def test_without_a_device_they_are_operators(tmp_path: Path) -> None:
    analysis = analyse(made(tmp_path / "run", [kernel("aten::mm", 0, 1, None)], parts=False))
    (table,) = where(view_of(analysis.run, analysis.verdict), read_makeup(analysis.run)).tables
    assert table.caption == "Operators on the CPU of 2 steps"
    assert table.rows[0].cells == ["aten::mm", "1.00 ms", "1", "100%"]


def test_the_timeline_has_rows_for_parts_and_streams(tmp_path: Path) -> None:
    packed = workers.packed(analyse(made(tmp_path / "run", KERNELS)))
    assert packed is not None
    parts, gemm, reduce = packed["lanes"]
    assert (parts["label"], parts["count"], parts["legend"]) == ("parts", 60, True)
    assert (gemm["label"], gemm["count"]) == ("stream 7", 2)
    assert (reduce["label"], reduce["names"][0]["label"]) == ("stream 9", "ncclDevKernel_AllReduce")
    start, end = (column(gemm[edge], "<u4", 2).astype(int) for edge in ("from", "to"))
    assert ((end - start) * packed["unit_ns"]).tolist() == [2 * MS, 2 * MS]
    assert packed["jumps"][-1]["label"] == "Traced kernels"
    plain = workers.packed(analyse(load(make_run(tmp_path / "plain", Plan(batches=20)))))
    assert plain is not None
    assert plain["lanes"] == []


def test_perfetto_has_them_on_tracks_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    from tests.report.export.test_perfetto import parsed, slices

    trace = parsed(analyse(made(tmp_path / "run", KERNELS)), tmp_path / "trace")
    tracks = {packet.track_descriptor.name for packet in trace.packet if packet.HasField("track_descriptor")}
    assert {
        "device: parts of a step",
        "kernels: device 0, stream 7",
        "kernels: device 0, stream 9",
    } <= tracks
    boxes = slices(trace)
    assert sum(category == "part" for category, *_ in boxes) == 60
    assert [(name, end - start) for category, name, start, end in boxes if category == "kernel"] == [
        ("gemm", 2 * MS), ("gemm", 2 * MS), ("ncclDevKernel_AllReduce", MS),
    ]  # fmt: skip
