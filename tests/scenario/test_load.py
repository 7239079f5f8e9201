"""Scenarios that are right: files, overrides, matrices, what is expected of a cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeprof.errors import ScenarioError
from pipeprof.scenario import Scenario, accelerator_model, json_schema, load, storage_model, with_values

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "disk.yaml"
        path.write_text(text)
        return path

    return _write


def one(path: Path, *overrides: str) -> Scenario:
    (scenario,) = load(path, overrides)
    return scenario


def test_a_file_names_its_scenario_and_fills_in_defaults(write: Write) -> None:
    scenario = one(write("storage: {tier: hdd}\n"))
    assert (scenario.name, scenario.storage.tier, scenario.loader.workers) == ("disk", "hdd", 4)


def test_a_run_without_a_limit_ends_after_20_seconds(write: Write) -> None:
    assert one(write("run: {warmup_steps: 2}\n")).run.seconds == 20
    assert one(write("run: {steps: 30}\n")).run.seconds is None
    assert one(write("about: x\n")).run.seconds == 20


def test_an_empty_section_is_a_section_of_defaults(write: Write) -> None:
    assert one(write("loader:\nrun:\n  steps: 9\n")).loader.workers == 4


def test_arguments_of_dataloader_are_keys_too(write: Write) -> None:
    path = write("loader: {workers: 1}\n")
    for written in ("num_workers=3", "loader.num_workers=3", "loader.workers=3"):
        assert one(path, written).loader.workers == 3
    assert one(path, "prefetch_factor=5").loader.prefetch == 5
    of_matrix = write("matrix: {loader.workers: [1, 2]}\n")
    assert one(of_matrix, "num_workers=4").loader.workers == 4


def test_numbers_with_exponents_are_numbers(write: Write) -> None:
    scenario = one(write("data: {samples: 1e3}\nmodel: {learning_rate: 1e-6}\nrun: {seconds: 1.5e1}\n"))
    assert scenario.data.samples == 1000
    assert scenario.model.learning_rate == 1e-6
    assert scenario.run.seconds == 15


def test_resolved_is_json_that_reads_back(write: Write) -> None:
    path = write("expect: {cause: decode}\nmatrix: {loader.workers: [0, 2], storage.tier: [hdd, ssd]}\n")
    for scenario in load(path):
        written = json.loads(json.dumps(scenario.resolved()))
        assert Scenario.model_validate(written) == scenario
        assert "import" in written["data"]


class TestOverrides:
    def test_an_override_wins_and_its_value_is_yaml(self, write: Write) -> None:
        path = write("loader: {workers: 2}\n")
        scenario = one(path, "loader.workers=8", "loader.pin_memory=true", "storage.figures.latency_ns=1e6")
        assert (scenario.loader.workers, scenario.loader.pin_memory) == (8, True)
        assert scenario.storage.figures == {"latency_ns": 1e6}

    def test_the_last_of_two_holds(self, write: Write) -> None:
        assert one(write("about: x\n"), "loader.workers=8", "loader.workers=1").loader.workers == 1

    def test_null_goes_back_to_the_default(self, write: Write) -> None:
        assert one(write("loader: {prefetch: 8}\n"), "loader.prefetch=null").loader.prefetch is None

    def test_a_value_may_hold_an_equals_sign(self, write: Write) -> None:
        assert one(write("about: x\n"), "about=a=b").about == "a=b"

    def test_overridden_scenarios_expect_nothing_unless_only_the_run_changed(self, write: Write) -> None:
        path = write("expect: {cause: decode}\n")
        assert one(path, "loader.workers=8").expect is None
        shorter = one(path, "run.seconds=2").expect
        assert shorter is not None
        assert shorter.cause == ["decode"]

    def test_taking_the_workers_away_takes_what_is_said_of_them_too(self, write: Write) -> None:
        path = write("loader: {workers: 4, prefetch: 4, persistent_workers: true}\n")
        loader = one(path, "loader.workers=0").loader
        assert (loader.workers, loader.prefetch, loader.persistent_workers) == (0, None, False)
        with pytest.raises(ScenarioError, match="needs workers"):
            load(path, ["loader.workers=0", "loader.prefetch=2"])


class TestPaths:
    def test_a_path_in_the_file_is_relative_to_the_file(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        scenario = one(write("data: {format: image_folder, path: images}\n"))
        assert scenario.data.path == str(tmp_path / "images")

    def test_a_path_in_an_override_is_relative_to_the_working_directory(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = tmp_path / "elsewhere"
        (here / "images").mkdir(parents=True)
        monkeypatch.chdir(here)
        scenario = one(write("about: x\n"), "data.format=image_folder", "data.path=images")
        assert scenario.data.path == str(here / "images")

    def test_a_remote_place_is_left_as_it_is(self, write: Write) -> None:
        assert one(write("storage: {path: 's3://bucket/train'}\n")).storage.path == "s3://bucket/train"


class TestMatrix:
    def test_it_expands_to_one_scenario_a_cell_with_its_values(self, write: Write) -> None:
        cells = load(write("matrix: {storage.tier: [hdd, ssd], loader.workers: [0, 2, 4]}\n"))
        assert len(cells) == 6
        assert cells[0].name == "disk-tier=hdd,workers=0"
        assert cells[-1].cell == {"storage.tier": "ssd", "loader.workers": 4}
        assert all(cell.storage.tier == cell.cell["storage.tier"] for cell in cells)
        assert all(cell.loader.workers == cell.cell["loader.workers"] for cell in cells)
        assert len({cell.name for cell in cells}) == 6
        assert not any(cell.matrix for cell in cells)

    def test_a_value_with_a_slash_names_no_directory_below(self, write: Write) -> None:
        (cell,) = load(write("matrix: {accelerator.preset: [h100/resnet50]}\n"))
        assert cell.name == "disk-preset=h100-resnet50"

    def test_two_keys_with_the_same_last_word_are_told_apart(self, write: Write) -> None:
        (cell,) = load(write("matrix: {data.seed: [1], run.seed: [2]}\n"))
        assert cell.name == "disk-data.seed=1,run.seed=2"

    def test_setting_a_key_that_it_varies_replaces_that_axis(self, write: Write) -> None:
        path = write("matrix: {storage.tier: [hdd, ssd], loader.workers: [0, 2, 4]}\n")
        cells = load(path, ["loader.workers=3"])
        assert [cell.cell for cell in cells] == [{"storage.tier": "hdd"}, {"storage.tier": "ssd"}]
        assert {cell.loader.workers for cell in cells} == {3}
        cells = load(path, ["loader.workers=[1, 8]"])
        assert [cell.loader.workers for cell in cells] == [1, 8, 1, 8]

    def test_an_override_can_make_an_axis(self, write: Write) -> None:
        cells = load(write("about: x\n"), ["matrix.loader.workers=[1, 8]"])
        assert [cell.loader.workers for cell in cells] == [1, 8]

    def test_a_cell_without_workers_drops_what_the_file_says_of_them(self, write: Write) -> None:
        cells = load(write("loader: {prefetch: 4}\nmatrix: {loader.workers: [0, 2]}\n"))
        assert [cell.loader.prefetch for cell in cells] == [None, 4]

    def test_cells_may_vary_a_figure_of_the_device(self, write: Write) -> None:
        cells = load(write("matrix: {storage.figures.bandwidth_bytes_per_s: [1e8, 2e8]}\n"))
        models = [storage_model(cell.storage) for cell in cells]
        assert [model.bandwidth_bytes_per_s for model in models if model] == [1e8, 2e8]

    def test_each_cell_expects_what_is_said_of_it(self, write: Write) -> None:
        text = """
matrix: {loader.workers: [0, 4]}
expect:
  cause: decode
  cells:
    - {when: {loader.workers: 0}, min_stall: 0.5, fix: more-workers}
    - {when: {loader.workers: 4}, max_stall: 0.1}
"""
        none, four = (cell.expect for cell in load(write(text)))
        assert none is not None
        assert four is not None
        assert (none.cause, none.fix, none.min_stall, none.max_stall) == (
            ["decode"],
            ["more-workers"],
            0.5,
            None,
        )
        assert (four.cause, four.fix, four.min_stall, four.max_stall) == (["decode"], [], None, 0.1)


class TestWithValues:
    def test_it_changes_keys_and_checks_again(self, write: Write) -> None:
        scenario = with_values(one(write("loader: {workers: 4, prefetch: 4}\n")), {"loader.workers": 0})
        assert (scenario.loader.workers, scenario.loader.prefetch) == (0, None)
        with pytest.raises(ScenarioError, match=r"storage\.tier"):
            with_values(scenario, {"storage.tier": "hd"})

    def test_it_keeps_the_cell_of_a_matrix(self, write: Write) -> None:
        cell = load(write("matrix: {loader.workers: [1, 2]}\n"))[1]
        assert with_values(cell, {"run.steps": 50}).cell == {"loader.workers": 2}


class TestEmulated:
    def test_a_tier_means_its_own_device(self, write: Write) -> None:
        model = storage_model(one(write("storage: {tier: hdd}\n")).storage)
        assert model is not None
        assert (model.tier, model.kind) == ("hdd", "disk")

    def test_a_real_directory_has_no_model(self, write: Write, tmp_path: Path) -> None:
        assert storage_model(one(write(f"storage: {{path: {tmp_path}}}\n")).storage) is None

    def test_a_step_time_is_an_accelerator(self, write: Write) -> None:
        text = "accelerator: {kind: emulated, step_ms: 160, queue_depth: 3, link: pcie-gen4}\n"
        model = accelerator_model(one(write(text)).accelerator)
        assert (model.step_ns, model.batch_size, model.queue_depth) == (160_000_000, None, 3)
        assert model.link.name == "pcie-gen4"

    def test_a_preset_is_scaled_and_keeps_its_link(self, write: Write) -> None:
        model = accelerator_model(one(write("accelerator: {preset: h100/resnet50}\n")).accelerator)
        assert model.step_time_ns(200) == 112_000_000
        assert model.link.name == "pcie-gen5"


def test_every_key_has_a_description_in_the_schema() -> None:
    for name, part in json_schema()["$defs"].items():
        assert part["description"], name
        for key, value in part["properties"].items():
            assert "description" in value, f"{name}.{key}"


def test_the_schema_hides_what_is_never_written() -> None:
    assert "cell" not in json_schema()["properties"]
    assert "import" in json_schema()["$defs"]["DataPart"]["properties"]
