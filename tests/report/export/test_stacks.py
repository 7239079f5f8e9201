"""Flame graphs: speedscope files and folded stacks, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.analyse.why.lines import read_lines
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.record import reader
from pipeprof.report.export import stacks
from tests.factory import MS, Plan, Sampled, make_run

DATA, TRAIN = "/home/me/project/data.py", "/home/me/project/train.py"
OPENS = ((DATA, 41, "Scenes.__getitem__"), ("/usr/lib/python3.11/zipfile.py", 1302, "ZipFile.__init__"))
SAMPLED = (
    Sampled("getitem", OPENS, 90 * MS, worker=0),
    Sampled("getitem", OPENS, 60 * MS, worker=1),
    Sampled("collate", ((DATA, 60, "put; together"),), 10 * MS, worker=1),
    Sampled("main", ((TRAIN, 7, "<module>"), (TRAIN, 3, "main")), 20 * MS),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", Plan(batches=30, workers=2, lines=SAMPLED))


def test_speedscope_has_a_profile_for_each_thread_with_all_its_time(run: Path, tmp_path: Path) -> None:
    content = json.loads(stacks.write_speedscope(reader.load(run), tmp_path / "s.json").read_text())
    assert content["$schema"] == stacks.SCHEMA
    frames = content["shared"]["frames"]
    assert len({json.dumps(frame) for frame in frames}) == len(frames)
    totals = {}
    for profile in content["profiles"]:
        assert profile["type"] == "sampled" and profile["unit"] == "nanoseconds"
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
        assert all(0 <= frame < len(frames) for sample in profile["samples"] for frame in sample)
        totals[profile["name"]] = sum(profile["weights"])
    assert totals == {"training thread": 20 * MS, "worker 0": 90 * MS, "worker 1": 70 * MS}
    first = content["profiles"][1]["samples"][0]
    assert [frames[each]["name"] for each in first] == ["[getitem]", "Scenes.__getitem__", "ZipFile.__init__"]
    assert frames[first[1]] == {"name": "Scenes.__getitem__", "file": "data.py", "line": 41}


def test_folded_stacks_hold_the_same_time_and_split_back_into_their_frames(run: Path, tmp_path: Path) -> None:
    rows = stacks.write_collapsed(reader.load(run), tmp_path / "s.folded").read_text().splitlines()
    parsed = [(text.split(";"), int(weight)) for text, _, weight in (row.rpartition(" ") for row in rows)]
    assert sum(weight for _, weight in parsed) == sum(
        each.wall_ns for each in read_lines(reader.load(run)).stacks
    )
    assert (["worker 1", "[collate]", "put, together (data.py:60)"], 10 * MS) in parsed


def test_workers_of_several_loaders_have_profiles_of_their_own(tmp_path: Path) -> None:
    line = ((DATA, 1, "f"),)
    sampled = (Sampled("getitem", line, MS, worker=0), Sampled("getitem", line, MS, worker=0, loader=1))
    run = make_run(tmp_path / "run", Plan(batches=30, lines=sampled))
    content = json.loads(stacks.write_speedscope(reader.load(run), tmp_path / "s.json").read_text())
    assert [each["name"] for each in content["profiles"]] == ["loader 0, worker 0", "loader 1, worker 0"]


@pytest.mark.parametrize("write", [stacks.write_speedscope, stacks.write_collapsed])
def test_a_run_without_samples_says_so(tmp_path: Path, write: stacks.Writer) -> None:
    run = make_run(tmp_path / "run", Plan(batches=30))
    with pytest.raises(TraceError, match="no lines were sampled") as caught:
        write(reader.load(run), tmp_path / "s")
    assert "--no-lines" in str(caught.value.remedy)
    assert not (tmp_path / "s").exists()


def test_a_place_that_cannot_be_written_is_an_error_of_ours(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot write"):
        stacks.write_speedscope(reader.load(run), tmp_path / "no" / "such" / "folder.json")


@pytest.mark.parametrize(
    ("form", "name"), [("speedscope", "speedscope.json"), ("collapsed", "stacks.folded")]
)
def test_the_verb_writes_into_the_run(run: Path, form: str, name: str) -> None:
    done = CliRunner().invoke(cli, ["export", str(run), "--to", form])
    assert done.exit_code == 0, done.output
    assert (run / name).is_file() and str(run / name) in done.output
