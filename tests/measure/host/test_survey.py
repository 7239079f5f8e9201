"""`pipeprof devices`: finds without measuring, measures without leaving anything behind."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.cli.measure.devices import command
from pipeprof.devices import storage_from_profile
from pipeprof.errors import MeasureError, ScenarioError
from pipeprof.measure.bench import device_profile
from pipeprof.measure.device.here import available_device
from pipeprof.measure.host import survey_disk, survey_machine
from pipeprof.measure.host.block_devices import MountedPlace
from pipeprof.scenario.profile import read_profile

MIB = 2**20
Room = namedtuple("Room", "f_bavail f_frsize")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller files and fewer points: what is tested is not the device."""
    monkeypatch.setattr(survey_disk, "FILE_BYTES", 32 * MIB)
    monkeypatch.setattr(survey_disk, "DEPTHS", (1, 4))
    monkeypatch.setattr(survey_machine, "_COPY_BYTES", MIB)
    monkeypatch.setattr(device_profile, "_IMAGES", 2)
    monkeypatch.setattr(survey_machine, "_ROUNDS", 1)


def measured(path: Path) -> dict[str, object]:
    return survey_disk.measure_place(path, 0.01, lambda text: None)


def test_a_place_is_measured_and_left_as_it_was(quick: None, tmp_path: Path) -> None:
    said: list[str] = []
    entry = survey_disk.measure_place(tmp_path, 0.01, said.append)
    assert list(tmp_path.iterdir()) == []
    assert entry["own_file_bytes"] == 32 * MIB
    assert entry["sequential"]["bytes"] == 32 * MIB
    assert entry["sequential"]["bytes_per_s"] > 0
    assert {(point["size_bytes"], point["queue_depth"]) for point in entry["random"]} == {
        (size, depth) for size in (4096, 131072, 1048576) for depth in (1, 4)
    }
    for point in entry["random"]:
        assert point["reads"] >= point["queue_depth"]
        assert 0 < point["latency_p50_ns"] <= point["latency_p99_ns"]
    assert entry["model"]["source"].startswith("measured by pipeprof devices")
    assert any("writing a test file of 32 MiB" in text for text in said)
    assert sum("random" in text for text in said) == 6


def test_never_more_than_a_tenth_of_the_free_space(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_disk, "FILE_BYTES", 10**12)
    monkeypatch.setattr(survey_disk.os, "statvfs", lambda path: Room(400 * MIB // 4096, 4096))
    assert measured(tmp_path)["own_file_bytes"] == 40 * MIB


def test_without_room_the_largest_file_there_is_read(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_disk.os, "statvfs", lambda path: Room(1, 4096))
    with pytest.raises(MeasureError, match="no large file to read"):
        measured(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "shard.tar").write_bytes(os.urandom(33 * MIB))
    entry = measured(tmp_path)
    assert entry["own_file_bytes"] == 0
    assert (tmp_path / "below" / "shard.tar").stat().st_size == 33 * MIB


def test_without_direct_reads_it_says_so(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(survey_disk.os, "O_DIRECT", raising=False)
    entry = measured(tmp_path)
    assert entry["sequential"]["direct"] is False  # type: ignore[index]


@pytest.mark.parametrize("name", ["none", "file"])
def test_what_is_no_directory_gets_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MeasureError, match=r"does not exist|is not a directory"):
        measured(tmp_path / name)


@pytest.mark.slow
def test_the_machine_is_measured_in_part_where_there_is_no_gpu(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    found = device_profile.measure_devices([tmp_path], 0.01, lambda text: None)
    assert found["memory"]["copy_bytes_per_s"] > 0
    assert found["decode"]["images_per_s_per_core"] > 0
    assert found["link"] is None
    assert found["not_observed"] == ["link: torch sees no device"]
    assert found["machine"]["usable_cores"] > 0


@pytest.mark.gpu
def test_the_link_is_measured_where_there_is_a_gpu() -> None:
    if available_device() is None:
        pytest.skip("torch sees no device here")
    rates = survey_machine.link_rates()
    assert rates is not None
    assert rates[-1]["pinned_bytes_per_s"] > rates[-1]["pageable_bytes_per_s"] > 0


def test_the_verb_shows_what_is_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("cores:")
    assert str(tmp_path) in result.output
    everything = CliRunner().invoke(command, [])
    assert everything.exit_code == 0, everything.output


def test_the_verb_prints_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--json", str(tmp_path)])
    found = json.loads(result.stdout)
    assert found["tiers"][0]["path"] == str(tmp_path)
    assert found["machine"]["cpu_count"]


@pytest.mark.slow
def test_the_verb_saves_a_profile_that_a_scenario_takes(quick: None, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target = tmp_path / "profile.json"
    arguments = ["--measure", "--seconds", "0.01", "--out", str(target), str(tmp_path / "data")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert f"saved as {target}" in result.output
    rows = [line.split() for line in result.output.splitlines()]
    points = [(row[0], row[2]) for row in rows if row[1:2] == ["KiB"]]
    assert points == [(size, depth) for size in ("4", "128", "1024") for depth in ("1", "4")]
    assert storage_from_profile(read_profile(target)).name == f"profile:{tmp_path / 'data'}"


def test_the_verb_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path / "none")], ["--measure", str(tmp_path / "none")]):
        result = CliRunner().invoke(command, arguments)
        assert isinstance(result.exception, MeasureError)
        assert "does not exist" in str(result.exception)


def test_a_directory_that_cannot_be_read_says_so(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_disk.os, "access", lambda path, rights: False)  # root may always
    with pytest.raises(MeasureError, match="cannot be read: permission denied"):
        measured(tmp_path)


def test_a_tier_that_is_not_observed_is_not_called_an_ssd(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_disk, "place_of", lambda path: MountedPlace(str(path)))
    entry = measured(tmp_path)
    assert (entry["tier"], entry["model"]["tier"]) == (None, None)  # type: ignore[index]


@pytest.mark.parametrize("target", ["none/profile.json", "."])
def test_where_no_profile_can_be_written_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(device_profile, "measure_devices", lambda *_: pytest.fail("it measured first"))
    result = CliRunner().invoke(command, ["--measure", "--out", str(tmp_path / target), str(tmp_path)])
    assert isinstance(result.exception, ScenarioError)
    assert "cannot write" in str(result.exception)
