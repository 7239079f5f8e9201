"""From measured points to a model: the figures that made the points come out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeprof.devices import StorageModel, fit_error, storage_from_profile, storage_preset
from pipeprof.errors import ScenarioError
from pipeprof.measure.host.profile import write_profile
from pipeprof.scenario.profile import read_profile

pytestmark = pytest.mark.slow


def measured(model: StorageModel, path: str = "/data", tier: str | None = None) -> dict[str, Any]:
    """What a measurement of `model` would have found."""
    points = []
    for size in (4096, 128 * 1024, 2**20):
        for depth in (1, 2, 4, 8, 16, 32):
            rate = model.throughput_bytes_per_s(size, depth) / size
            latency = round(depth / rate * 1e9)
            points.append(
                {
                    "size_bytes": size,
                    "queue_depth": depth,
                    "reads_per_s": rate,
                    "latency_p50_ns": latency,
                    "latency_p99_ns": latency,
                }
            )
    sequential = {"bytes_per_s": model.throughput_bytes_per_s(4 * 2**20, 1, sequential=True)}
    return {"path": path, "tier": tier, "sequential": sequential, "random": points}


@pytest.mark.parametrize("name", ["hdd-7200", "sata-ssd", "nvme-gen3", "nfs-10g"])
def test_a_preset_is_found_again_by_measuring_it(name: str) -> None:
    preset = storage_preset(name)
    entry = measured(preset, tier=preset.tier)
    found = storage_from_profile({"tiers": [entry]})
    assert (found.kind, found.tier) == (preset.kind, preset.tier)
    assert fit_error(found, entry["random"]) < 0.03
    if preset.kind == "disk":
        assert found.seek_ns == pytest.approx(preset.seek_ns + preset.half_rotation_ns, rel=0.01)


def test_a_place_whose_tier_is_not_observed_takes_the_scenarios() -> None:
    profile = {"tiers": [measured(storage_preset("nvme"))]}
    assert storage_from_profile(profile, tier="nvme").tier == "nvme"
    assert storage_from_profile(profile).tier == "ssd"


def test_one_of_several_places_is_chosen_by_its_path() -> None:
    profile = {
        "tiers": [
            measured(storage_preset("ssd"), "/fast", "ssd"),
            measured(storage_preset("hdd"), "/slow", "hdd"),
        ]
    }
    assert storage_from_profile(profile).tier == "ssd"
    assert storage_from_profile(profile, "/slow").tier == "hdd"
    with pytest.raises(ScenarioError, match="nothing at /other"):
        storage_from_profile(profile, "/other")


def test_memory_costs_nothing() -> None:
    assert storage_from_profile({"tiers": [measured(storage_preset("ssd"), tier="ram")]}).kind == "memory"


def test_a_profile_without_measurements_is_refused() -> None:
    with pytest.raises(ScenarioError, match="measured no storage"):
        storage_from_profile({"tiers": [{"path": "/data", "tier": "ssd"}]})
    damaged = measured(storage_preset("ssd"))
    del damaged["random"][0]["size_bytes"]
    with pytest.raises(ScenarioError, match="damaged"):
        storage_from_profile({"tiers": [damaged]})


def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.json", {"tiers": [measured(storage_preset("ssd"))]})
    assert storage_from_profile(read_profile(tmp_path / "p.json")).kind == "parallel"
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a device profile"),
        ('{"schema": 1}', "is not a device profile"),
        ('{"schema": 99, "tiers": []}', "newer pipeprof"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ScenarioError, match=says):
        read_profile(tmp_path / "p.json")


def test_a_missing_profile_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        read_profile(tmp_path / "none.json")
    with pytest.raises(ScenarioError, match="is not a regular file"):
        read_profile(tmp_path)
    with pytest.raises(ScenarioError, match="cannot write"):
        write_profile(tmp_path / "none" / "p.json", {"tiers": []})


def test_the_place_of_the_scenarios_tier_is_taken() -> None:
    places = [("/fast", "ssd"), ("/unknown", None), ("/slow", "hdd"), ("/slower", "hdd")]
    seen = measured(storage_preset("ssd"))
    profile = {"tiers": [{**seen, "path": path, "tier": tier} for path, tier in places]}
    assert storage_from_profile(profile, tier="hdd").name == "profile:/slow"
    assert storage_from_profile(profile, tier="nvme").name == "profile:/unknown"
    assert storage_from_profile(profile, "/slower", "hdd").name == "profile:/slower"
    known = {"tiers": [profile["tiers"][0], profile["tiers"][2]]}
    with pytest.raises(ScenarioError, match=r"nothing of the tier nvme, but /fast \(ssd\), /slow \(hdd\)"):
        storage_from_profile(known, tier="nvme")


@pytest.mark.parametrize(
    "tiers",
    [
        ["x"],
        [None],
        5,
        [{"random": [{}], "sequential": {"bytes_per_s": "fast"}, "path": "/"}],
        [{"random": "text", "sequential": "text", "path": "/"}],
        [{"random": {}, "sequential": {}}, 7],
    ],
    ids=str,
)
def test_a_damaged_profile_gets_one_error(tiers: object) -> None:
    with pytest.raises(ScenarioError, match="the device profile is damaged"):
        storage_from_profile({"tiers": tiers})


@pytest.mark.parametrize("text", ["fast", None, float("inf")])
def test_a_damaged_figure_gets_one_error(text: object) -> None:
    damaged = measured(storage_preset("ssd"))
    for point in damaged["random"]:
        point["latency_p50_ns"] = text
    with pytest.raises(ScenarioError, match="damaged"):
        storage_from_profile({"tiers": [damaged]})


def test_channels_that_python_could_not_fill_are_labelled() -> None:
    entry = measured(storage_preset("nvme"))
    assert "Python" not in storage_from_profile({"tiers": [entry]}).source
    for point in entry["random"]:
        point["limited_by_python"] = point["size_bytes"] == 4096 and point["queue_depth"] > 1
    assert "may have more channels: Python set the pace" in storage_from_profile({"tiers": [entry]}).source
