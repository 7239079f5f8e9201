"""The model of run.json: what is written reads back, and what does not fit is not observed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeprof.devices import LINKS, STORAGE, StorageModel
from pipeprof.errors import TraceError
from pipeprof.record.decode import DEEPEST
from pipeprof.record.meta import (
    MOST_CORES,
    AcceleratorMeta,
    DataMeta,
    JobMeta,
    LoaderMeta,
    MachineMeta,
    RunMeta,
    ScenarioMeta,
    StorageMeta,
    TelemetryMeta,
)
from tests.type_checked import checked

PATH = Path("run/run.json")
OLD_RUNS = Path(__file__).parent / "old_runs"
WHOLE = RunMeta(
    status="complete",
    pid=4711,
    kind="bench",
    name="a name, ü and \N{GRINNING FACE}",
    created_at="2026-01-01T00:00:00+00:00",
    command=("pipeprof", "run"),
    scenario=ScenarioMeta("a.yaml", "data: {}", {"loader": {"workers": 2}, "cell": {"loader.workers": 2}}),
    loaders=(LoaderMeta(0, workers=2, prefetch=2, in_order=True), LoaderMeta(1, kind="iterable")),
    accelerator=AcceleratorMeta(kind="emulated", emulated=True, link=LINKS["pcie-gen3"]),
    storage=StorageMeta(tier="hdd", model=STORAGE["hdd-7200"], options={"anon": True}, warnings=("slow",)),
    machine=MachineMeta(cpu_count=8, usable_cores=2.5, gpu_names=()),
    packages={"torch": "2.5"},
    data=DataMeta(format="imported", import_="mine:make"),
    telemetry=TelemetryMeta(rate_hz=10, gpu_uuids={"gpu0": None}),
    error="RuntimeError: no",
    rank=1,
    world_size=2,
    job=JobMeta(master="node0:1", world_size=2),
)


def read(**keys: Any) -> RunMeta:
    """What is read of a complete run whose run.json has these keys."""
    return RunMeta.from_json(json.dumps({"schema": 1, "status": "complete", **keys}), PATH)


def test_what_is_written_reads_back() -> None:
    assert RunMeta.from_json(WHOLE.as_text(), PATH) == WHOLE
    assert RunMeta.from_json(RunMeta().as_text(), PATH) == RunMeta()
    assert json.loads(WHOLE.as_text())["data"]["import"] == "mine:make"


@pytest.mark.parametrize("model", STORAGE.values(), ids=lambda model: model.name)
def test_every_device_comes_back_from_its_figures(model: StorageModel) -> None:
    assert read(storage={"model": {**model.figures(), "of a later version": 1}}).storage.model == model


@pytest.mark.parametrize("path", sorted(OLD_RUNS.rglob("run.json")), ids=lambda path: path.parent.name)
def test_nothing_that_an_older_run_says_is_lost(path: Path) -> None:
    text = path.read_text()
    kept = RunMeta.from_json(text, path).as_json()
    assert _lost(json.loads(text), kept) == []


def _lost(before: Any, after: Any, where: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [text for key in before for text in _lost(before[key], after.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [text for i, each in enumerate(before) for text in _lost(each, after[i], f"{where}[{i}]")]
    return [] if before == after else [f"{where}: {before} is {after}"]


def test_a_number_of_numpys_is_written_as_one() -> None:
    meta = RunMeta(loaders=(LoaderMeta(0, batch_size=np.int64(4)),))  # type: ignore[arg-type]
    assert RunMeta.from_json(meta.as_text(), PATH).loaders[0].batch_size == 4


DISK: dict[str, Any] = {"name": "d", "tier": "hdd", "kind": "disk", "bandwidth_bytes_per_s": 1e8}
MISFITS: list[tuple[dict[str, Any], Callable[[RunMeta], object]]] = [
    ({"pid": 2**70}, lambda meta: meta.pid),
    ({"pid": 0}, lambda meta: meta.pid),
    ({"error": 5}, lambda meta: meta.error),
    ({"world_size": "2"}, lambda meta: meta.world_size),
    ({"rank": True}, lambda meta: meta.rank),
    ({"machine": {"usable_cores": "x"}}, lambda meta: meta.machine.usable_cores),
    ({"machine": {"usable_cores": 2**31}}, lambda meta: meta.machine.usable_cores),
    ({"machine": {"usable_cores": -1}}, lambda meta: meta.machine.usable_cores),
    ({"machine": {"cpu_quota_cores": 1e308}}, lambda meta: meta.machine.cpu_quota_cores),
    ({"machine": {"memory_bytes": 10**300}}, lambda meta: meta.machine.memory_bytes),
    ({"machine": {"gpu_names": "one"}}, lambda meta: meta.machine.gpu_names),
    ({"loaders": [{"id": 0, "samples": 1e308}]}, lambda meta: meta.loaders[0].samples),
    ({"loaders": [{"id": 0, "workers": 2.0}]}, lambda meta: meta.loaders[0].workers),
    ({"loaders": [{"id": 0, "workers": 10**9}]}, lambda meta: meta.loaders[0].workers),
    ({"loaders": [{"id": 0, "prefetch": 0}]}, lambda meta: meta.loaders[0].prefetch),
    ({"loaders": [{"id": 0, "prefetch": 10**6}]}, lambda meta: meta.loaders[0].prefetch),
    ({"loaders": [{"id": 0, "batch_size": 10**15}]}, lambda meta: meta.loaders[0].batch_size),
    ({"storage": {"model": "x"}}, lambda meta: meta.storage.model),
    ({"storage": {"model": {"kind": "disk"}}}, lambda meta: meta.storage.model),
    ({"storage": {"model": DISK | {"seek_ns": 2**62}}}, lambda meta: meta.storage.model),
    ({"storage": {"model": DISK | {"channels": 2**40}}}, lambda meta: meta.storage.model),
    ({"accelerator": {"queue_depth": 2**40}}, lambda meta: meta.accelerator.queue_depth),
    ({"accelerator": {"link": {"name": "a", "pageable_bytes_per_s": 0}}}, lambda meta: meta.accelerator.link),
    ({"data": {"mean_bytes": -1}}, lambda meta: meta.data.mean_bytes),
    ({"clock": {"monotonic_ns": -1}}, lambda meta: meta.clock.monotonic_ns),
    ({"clock": {"unix_ns": 2**63}}, lambda meta: meta.clock.unix_ns),
    ({"scenario": {"text": True}}, lambda meta: meta.scenario.text),
    ({"scenario": {"resolved": {"loader": {"workers": "many"}}}}, lambda meta: meta.settings.loader.workers),
]


@pytest.mark.parametrize(("keys", "of"), MISFITS, ids=lambda value: str(value)[:60])
def test_what_does_not_fit_is_not_observed(keys: dict[str, Any], of: Callable[[RunMeta], object]) -> None:
    assert of(read(**keys)) is None


@pytest.mark.parametrize(
    "name",
    ["loaders", "machine", "accelerator", "scenario", "storage", "telemetry", "not_observed", "emulated"],
)
@pytest.mark.parametrize("value", [5, "x", None, True, [1], {"a": [{}]}])
def test_a_part_of_another_shape_is_an_empty_one(name: str, value: Any) -> None:
    assert getattr(read(**{name: value}), name) == getattr(RunMeta(), name)


def test_the_rest_of_a_part_is_kept() -> None:
    meta = read(
        machine={"usable_cores": "x", "memory_bytes": 5, "of a later version": 1},
        loaders=[True, {}, {"id": -1}, {"id": 3, "name": "validation"}],
        warnings=["one", 2, "three"],
        later={"a": 1},
    )
    assert meta.machine == MachineMeta(memory_bytes=5)
    assert meta.loaders == (LoaderMeta(3, name="validation"),)
    assert meta.loader(3).name == "validation"
    assert meta.loader(4) == LoaderMeta(4)
    assert meta.warnings == ("one", "three")


def test_the_largest_values_are_read() -> None:
    assert read(machine={"usable_cores": MOST_CORES}).machine.usable_cores == MOST_CORES


def test_infinities_are_not_observed() -> None:
    text = '{"schema": 1, "machine": {"usable_cores": NaN}, "data": {"mean_bytes": Infinity}}'
    meta = RunMeta.from_json(text, PATH)
    assert (meta.machine.usable_cores, meta.data.mean_bytes) == (None, None)


def test_half_a_surrogate_pair_can_be_written_to_a_page() -> None:
    meta = read(
        name="\ud800", command=["a\udcff"], packages={"\ud800": "1"}, scenario={"resolved": {"\udfff": 1}}
    )
    assert meta.name == "\ufffd"
    meta.as_text().encode()
    str([*meta.command, *meta.packages, *meta.scenario.resolved]).encode()


def test_settings_nested_too_deep_are_cut_off() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    resolved = read(scenario={"resolved": {"deep": deep, "name": "n"}}).scenario.resolved
    assert resolved["name"] == "n"
    assert str(resolved["deep"]).count("a") <= DEEPEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[" * 100_000 + "]" * 100_000, "cannot be read"),
        ("[]", "not a run of pipeprof"),
        ("{}", "not a run of pipeprof"),
        ('{"schema": true}', "not a run of pipeprof"),
        ('{"schema": "1"}', "not a run of pipeprof"),
        ('{"schema": -1}', "not a run of pipeprof"),
        ('{"schema": 2}', "newer pipeprof"),
        ('{"schema": 1, "pid": ' + "9" * 5000 + "}", "cannot be read"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_run_is_one_error(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        RunMeta.from_json(text, PATH)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), value=ANYTHING)
def test_any_value_in_any_place_is_read(data: st.DataObject, value: Any) -> None:
    whole = WHOLE.as_json()
    part: Any = whole
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], (dict, list)) or not part[key] or data.draw(st.booleans()):
            break
        part = part[key]
    part[key] = value
    try:
        meta = RunMeta.from_json(json.dumps(whole), PATH)
    except TraceError:
        return  # of the schema
    assert RunMeta.from_json(meta.as_text(), PATH) == meta


MISSPELT = """
from dataclasses import replace
from pipeprof.record.meta import LoaderMeta, RunMeta
from pipeprof.record.reader import Run
def read(run: Run) -> object: return run.meta.machine.usable_coers
def write(meta: RunMeta) -> RunMeta: return replace(meta, warnigns=())
def begin() -> RunMeta: return RunMeta(loaders=(LoaderMeta(0, wrokers=1),))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_misspelt_key_is_a_type_error_where_it_is_read_and_where_it_is_written(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    (tmp_path / "snippet.py").write_text(MISSPELT)
    said = checked(tmp_path / "snippet.py", pytestconfig)
    for word in ("usable_coers", "warnigns", "wrokers"):
        assert f'"{word}"' in said, said


def test_a_record_is_changed_by_replacing_it() -> None:
    meta = RunMeta()
    with pytest.raises(AttributeError):
        meta.name = "another"  # type: ignore[misc]
    assert replace(meta, name="another").name == "another"
