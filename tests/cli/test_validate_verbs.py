"""The verbs validate, schema and init, as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from pipeprof.cli.scenario.init import TEMPLATE
from pipeprof.scenario import Scenario, load
from tests.forked import Program, verb

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"


def pipeprof(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return Program(verb(*args), cwd).finished()


def test_validate_tells_each_file_and_exits_2_if_one_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("matrix: {loader.workers: [0, 2]}\n")
    (tmp_path / "bad.yaml").write_text("storage:\n  tier: sdd\n")
    done = pipeprof("validate", "bad.yaml", "good.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "good.yaml: valid, 2 runs\n"
    assert done.stderr.startswith("pipeprof: bad.yaml:2: storage.tier: is the text 'sdd'\ndid you mean ssd?")
    assert "Traceback" not in done.stderr
    assert pipeprof("validate", "good.yaml", cwd=tmp_path).returncode == 0


def test_validate_reads_the_profiles_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("storage: {profile: disk.json}\n")
    (tmp_path / "disk.json").write_text("[]")
    done = pipeprof("validate", "train.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "disk.json is not a device profile" in done.stderr


def test_validate_takes_overrides(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("about: x\n")
    done = pipeprof("validate", "good.yaml", "--set", "loader.workers=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert "--set loader.workers=-1: loader.workers: is -1" in done.stderr


def test_the_schema_beside_the_scenarios_is_what_the_verb_prints(tmp_path: Path) -> None:
    printed = pipeprof("schema", cwd=tmp_path).stdout
    assert json.loads(printed)["title"] == "pipeprof scenario"
    assert (SCENARIOS / "schema.json").read_text() == printed, "pipeprof schema > scenarios/schema.json"


def test_init_writes_a_scenario_that_is_valid_and_never_overwrites(tmp_path: Path) -> None:
    assert pipeprof("init", "mine", cwd=tmp_path).returncode == 0
    path = tmp_path / "mine.yaml"
    assert len(load(path)) == 1
    path.write_text("about: edited\n")
    done = pipeprof("init", "mine", cwd=tmp_path)
    assert (done.returncode, path.read_text()) == (2, "about: edited\n")
    assert done.stderr.startswith("pipeprof: mine.yaml exists")


def test_init_where_it_cannot_write(tmp_path: Path) -> None:
    done = pipeprof("init", "nowhere/mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_what_init_comments_out_is_of_the_schema() -> None:
    everything = yaml.safe_load(re.sub(r"^( {0,2})# ( *[\w.]+:)", r"\1\2", TEMPLATE, flags=re.M))
    assert set(everything) >= {"data", "storage", "loader", "accelerator", "model", "run", "expect", "matrix"}
    everything["storage"]["figures"] = {key: float(v) for key, v in everything["storage"]["figures"].items()}
    Scenario.model_validate(everything)
