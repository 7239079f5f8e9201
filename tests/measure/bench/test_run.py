"""Whole runs of the bench, short: real loaders, real workers, an emulated or a real accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

from pipeprof.analyse.analysis import analyse
from pipeprof.errors import DataError, MeasureError, TraceError
from pipeprof.measure.bench.run import run
from pipeprof.measure.bench.run_display import Progress
from pipeprof.measure.bench.training import make_loader
from pipeprof.measure.session.job import Rank
from pipeprof.record import reader, writer
from pipeprof.record.directories import new_directory
from pipeprof.record.meta import ScenarioMeta
from pipeprof.record.names.sensors import SENSORS
from pipeprof.scenario import LoaderPart, Scenario
from tests.measure.session.loader_cases import PlainSession


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made data sets are shared by the tests of this file and left nowhere else."""
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def scenario(**parts: dict[str, Any]) -> Scenario:
    """Small arrays on an emulated NVMe under a 5 ms step, with some keys changed."""
    whole: dict[str, Any] = {
        "data": {"format": "tensor_files", "samples": 64, "sample_bytes": 4000},
        "storage": {"tier": "nvme"},
        "loader": {"batch_size": 4, "workers": 2},
        "accelerator": {"kind": "emulated", "step_ms": 5.0},
        "run": {"steps": 40, "warmup_steps": 5},
    }
    for name, part in parts.items():
        whole[name] = {**whole.get(name, {}), **part}
    return Scenario.model_validate({"name": "short", **whole})


def column(found: reader.Run, table: str, name: str) -> list[Any]:
    values: list[Any] = found.table(table)[name].to_pylist()
    return values


def test_a_run_is_whole_and_says_what_it_was(tmp_path: Path) -> None:
    written = ScenarioMeta(path="short.yaml", text="name: short")
    found = reader.load(run(scenario(), tmp_path / "run", written=written))
    assert found.status == "complete"
    assert column(found, "steps", "step") == list(range(40))
    assert sum(column(found, "steps", "warmup")) == 5
    for name in ("request_ns", "take_ns", "launch_ns", "copy_end_ns", "compute_end_ns", "device_wait_ns"):
        assert None not in column(found, "steps", name)
    assert found.table("batches").num_rows >= 40
    assert set(column(found, "events", "kind")) >= {"epoch_start", "workers_ready", "epoch_end", "run_end"}
    assert found.table("telemetry").num_rows > 0
    meta = found.meta
    assert meta.scenario.text == "name: short"
    assert Scenario.model_validate(meta.scenario.resolved) == scenario()
    assert meta.emulated == (
        "storage: nvme-gen3", "accelerator: 5 ms a step", "host-to-device link: pcie-gen3"
    )  # fmt: skip
    assert meta.machine.usable_cores > 0
    assert meta.storage.emulator.requests >= 160
    assert meta.data.mean_bytes > 0
    assert meta.warmup_steps == 5


def test_the_rate_of_the_telemetry_can_be_said(tmp_path: Path) -> None:
    short = {"steps": 20, "warmup_steps": 2}
    found = reader.load(run(scenario(run={**short, "telemetry_hz": 50}), tmp_path / "often"))
    assert found.meta.telemetry.rate_hz == 50
    assert "memory.used_bytes" in column(found, "telemetry", "sensor")
    found = reader.load(run(scenario(run={**short, "telemetry_hz": 0}), tmp_path / "off"))
    seen = {name.partition(".")[0] for name in column(found, "telemetry", "sensor")}
    by_flushes = {"host", "cpu", "worker0", "worker1", "device", "group", "pressure"}
    assert seen <= by_flushes, "what the flush thread sees"
    known = tuple(name.partition("<")[0] for name in SENSORS)
    assert all(name.startswith(known) for name in column(found, "telemetry", "sensor"))
    assert any(what.startswith("cpu, processes, memory") for what in found.meta.not_observed)


@pytest.mark.slow
def test_epochs_follow_each_other_until_the_limit(tmp_path: Path) -> None:
    found = reader.load(run(scenario(), tmp_path / "run"))
    epochs = column(found, "steps", "epoch")
    assert [epochs.count(epoch) for epoch in (0, 1, 2)] == [16, 16, 8]
    found = reader.load(run(scenario(run={"steps": None, "epochs": 2}), tmp_path / "epochs"))
    assert found.table("steps").num_rows == 32


def test_seconds_count_from_the_first_batch(tmp_path: Path) -> None:
    limits = {"steps": None, "seconds": 0.5}
    found = reader.load(run(scenario(run=limits, loader={"workers": 0}), tmp_path / "run"))
    taken, launched = column(found, "steps", "take_ns"), column(found, "steps", "launch_ns")
    assert 0.4e9 < launched[-1] - taken[0] < 1.5e9


@pytest.mark.slow
def test_au_is_the_sum_of_step_times_over_the_wall_to_a_tenth_of_a_percent(tmp_path: Path) -> None:
    one_epoch: dict[str, Any] = {"data": {"samples": 200}}  # else what lies between two loops is no wall time
    hdd = scenario(storage={"tier": "hdd"}, accelerator={"step_ms": 30.0}, **one_epoch)
    for number, one in enumerate((scenario(**one_epoch), hdd)):
        found = analyse(reader.load(run(one, tmp_path / f"run{number}")))
        steps = found.run.table("steps").filter(pc.invert(pc.field("warmup")))
        busy = pc.sum(pc.subtract(steps["compute_end_ns"], steps["compute_start_ns"])).as_py()
        warm = found.run.table("steps").filter(pc.field("warmup"))
        wall = pc.max(steps["compute_end_ns"]).as_py() - pc.max(warm["compute_end_ns"]).as_py()
        said = found.verdict.as_dict()
        assert said["utilization_kind"] == "emulated"
        assert said["utilization"] == pytest.approx(busy / wall, abs=0.001)
        assert busy == pytest.approx(35 * (5e6 if number == 0 else 30e6), abs=35)


@pytest.mark.parametrize(
    "loader",
    [
        {"workers": 0},
        {"workers": 1, "persistent_workers": True},
        pytest.param({"in_order": False, "prefetch": 3}, marks=pytest.mark.slow),
        {"drop_last": False, "batch_size": 7},
        pytest.param({"pin_memory": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_knobs_of_the_loader_reach_it(tmp_path: Path, loader: dict[str, Any]) -> None:
    found = reader.load(run(scenario(loader=loader), tmp_path / "run"))
    assert found.status == "complete"
    assert found.table("steps").num_rows == 40
    (facts,) = found.meta.loaders
    for key, value in loader.items():
        if key != "drop_last":
            assert getattr(facts, key) == value
    if loader.get("drop_last") is False:
        assert 1 in column(found, "steps", "samples")  # 64 = 9 x 7 + 1


def test_the_order_of_the_samples_comes_from_the_seed() -> None:
    def order(seed: int, shuffle: bool = True) -> list[int]:
        part = LoaderPart(workers=0, batch_size=1, shuffle=shuffle)
        loader = make_loader(PlainSession(), range(50), part, seed)  # type: ignore[arg-type]
        return [int(batch) for batch in loader]

    assert order(1) == order(1) != order(2)
    assert order(1, shuffle=False) == list(range(50))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_ranks_of_a_job_share_the_samples_out(shuffle: bool) -> None:
    def share(rank: int) -> list[int]:
        part = LoaderPart(workers=0, batch_size=1, shuffle=shuffle, drop_last=False)
        peers: Any = SimpleNamespace(rank=Rank(rank, 3, rank, 3, 0, 0), count=3)
        loader = make_loader(PlainSession(), range(51), part, 1, peers)  # type: ignore[arg-type]
        return [int(batch) for batch in loader]

    shares = [share(rank) for rank in range(3)]
    assert [len(one) for one in shares] == [17, 17, 17]
    assert sorted(chain(*shares)) == list(range(51))
    assert (shares[0] == sorted(shares[0])) is not shuffle


def test_the_cpu_really_trains(tmp_path: Path) -> None:
    parts = {"accelerator": {"kind": "cpu", "step_ms": None}, "model": {"name": "two_layer_net"}}
    found = reader.load(run(scenario(**parts), tmp_path / "run"))
    assert found.status == "complete"
    assert found.meta.model.name == "two_layer_net"
    assert found.meta.emulated == ("storage: nvme-gen3",)
    assert all(end > start for start, end in zip(
        column(found, "steps", "compute_start_ns"), column(found, "steps", "compute_end_ns"), strict=True
    ))  # fmt: skip


def test_auto_is_emulated_where_there_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    found = reader.load(run(scenario(accelerator={"kind": "auto"}), tmp_path / "run"))
    assert found.meta.accelerator.kind == "emulated"
    with pytest.raises(MeasureError, match="asks for the accelerator cuda, and torch sees no device here"):
        run(scenario(accelerator={"kind": "cuda", "step_ms": None}), tmp_path / "cuda")
    assert not (tmp_path / "cuda").exists()


def images(directory: Path, count: int) -> Path:
    for number in range(count):
        place = directory / ("cats" if number % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (number * 5 % 256, 80, 120)).save(place / f"{number}.jpg")
    return directory


def test_a_directory_of_ones_own_images_works_without_any_other_change(tmp_path: Path) -> None:
    data = {"format": "image_folder", "path": str(images(tmp_path / "mine", 40)), "sample_bytes": None}
    found = reader.load(run(scenario(data=data), tmp_path / "run"))
    assert found.status == "complete"
    assert {"read", "decode"} <= set(column(found, "stages", "stage"))
    assert found.meta.data.samples == 40


class OwnFiles(torch.utils.data.Dataset[torch.Tensor]):
    """What a user would write: files opened by hand."""

    def __init__(self) -> None:
        self.files = sorted((Path.cwd() / "own").glob("*.bin"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with self.files[index].open("rb") as file:
            return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


def own_files() -> OwnFiles:
    return OwnFiles()


@pytest.mark.slow
def test_an_imported_data_set_reads_at_the_emulated_devices_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    for number in range(64):
        (tmp_path / "own" / f"{number}.bin").write_bytes(bytes(1000))
    data = {"format": "imported", "import": f"{__name__}:own_files", "sample_bytes": None}
    parts = {"storage": {"tier": "hdd"}, "run": {"steps": 16, "warmup_steps": 2}}
    slow = reader.load(
        run(scenario(data={**data, "path": str(tmp_path / "own")}, **parts), tmp_path / "slow")
    )
    assert slow.meta.storage.emulator.requests >= 64
    waits = column(slow, "steps", "device_wait_ns")
    per_step = 4 * 12.67e6 - 5e6  # each of four files costs a seek and half a turn; the step hides 5 ms
    assert sum(waits[2:]) > 0.8 * 14 * per_step
    free = reader.load(run(scenario(data=data, **parts), tmp_path / "free"))
    assert free.meta.storage.emulated is False
    assert any("is not emulated" in warning for warning in free.meta.warnings)
    assert sum(column(free, "steps", "device_wait_ns")[2:]) < sum(waits[2:]) / 2


def test_a_real_directory_is_not_emulated(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    storage = {"tier": "ssd", "path": str(tmp_path / "disk")}
    found = reader.load(run(scenario(storage=storage), tmp_path / "run"))
    assert found.meta.storage.emulated is False
    assert found.meta.emulated[0].startswith("accelerator")
    assert found.meta.storage.files == 64


def test_a_data_set_smaller_than_a_batch_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gave no batch"):
        run(scenario(loader={"batch_size": 65}), tmp_path / "run")
    assert reader.load(tmp_path / "run").status == "failed"


def test_a_broken_sample_ends_the_run_with_its_name_and_keeps_what_was_measured(tmp_path: Path) -> None:
    directory = images(tmp_path / "mine", 80)
    (directory / "cats" / "11.jpg").write_bytes(b"no image")
    data = {"format": "image_folder", "path": str(directory), "sample_bytes": None}
    with pytest.raises(DataError, match=r"11\.jpg"):
        run(
            scenario(data=data, run={"steps": None, "epochs": 1}, loader={"shuffle": False}), tmp_path / "run"
        )
    found = reader.load(tmp_path / "run")
    assert found.status == "failed"
    assert "11.jpg" in found.meta.error


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run(scenario(run={"steps": 3, "warmup_steps": 0}), tmp_path / "run")
    assert reader.load(tmp_path / "run").meta.overhead.lines_ns is not None, "its lines are sampled"
    before = (tmp_path / "run" / "run.json").read_text()
    with pytest.raises(TraceError, match="already holds a run"):
        run(scenario(run={"steps": 3, "warmup_steps": 0}), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_text() == before
    first = new_directory("name", tmp_path)
    assert new_directory("name", tmp_path) != first


@pytest.mark.slow
def test_a_record_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.TraceWriter, "append", full)
    with pytest.raises(TraceError, match="No space left on device"):
        run(scenario(run={"steps": None, "seconds": 60.0}), tmp_path / "run")


def test_the_display_sees_the_run_move(tmp_path: Path) -> None:
    seen: list[Progress] = []

    @contextmanager
    def watching(progress: Progress) -> Iterator[None]:
        seen.append(progress)
        assert progress.steps == 0
        yield

    run(scenario(), tmp_path / "run", display=watching)
    (progress,) = seen
    assert progress.steps == 40
    assert progress.samples == 160
    assert progress.busy_ns == pytest.approx(40 * 5e6, rel=1e-6)
    assert progress.done == 1.0
