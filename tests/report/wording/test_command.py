from __future__ import annotations

import shlex
from typing import Any

import pytest

from pipeprof.record.meta import LoaderMeta, ReadFileMeta, ReadingMeta, RunMeta, ScenarioMeta
from pipeprof.report.wording.command import CACHED, of_fix, of_longer
from pipeprof.vocabulary import fixes
from tests.factory import MS

LOADER = LoaderMeta(0, name="val-2", file="train.py", line=3)
WORKERS = {"num_workers": 4}


def of_trace(*own: str, others: bool = False, word: str = "more-workers", **arguments: Any) -> str:
    words = (*own, "train.py", "--out", "model dir")
    return of_fix(
        word, arguments or WORKERS, (), RunMeta(kind="trace", command=words, script_words=3), LOADER, others
    )


def test_the_runs_own_command_with_other_arguments() -> None:
    command = of_trace("pipeprof", "trace", "--out", "runs/x", "--steps", "9", "-m")
    expected = "pipeprof trace --steps 9 -m --set loader.num_workers=4 train.py --out 'model dir'"
    assert command == expected, "without its run directory, and with the script's own --out"


def test_what_was_set_before_is_set_anew_or_stays() -> None:
    own = (
        "python",
        "-m",
        "pipeprof",
        "trace",
        "--set=loader.num_workers=1",
        "--set",
        "loader.pin_memory=true",
    )
    command = of_trace(*own)
    assert "num_workers=1" not in command
    assert command.count("--set") == 2 and "--set loader.pin_memory=true" in command


def test_one_of_several_loaders_is_named_as_the_source_names_it() -> None:
    assert "--set val.num_workers=4" in of_trace("pipeprof", "trace", others=True)


def test_a_fix_without_arguments_is_tried_by_its_word() -> None:
    words = ("pipeprof", "trace", "train.py", "--token", "***")
    meta = RunMeta(kind="trace", command=words, script_words=3)
    tried = of_fix(fixes.GC_FREEZE.word, {}, (), meta, LOADER, False)
    assert shlex.split(tried) == ["pipeprof", "trace", "--try", "gc-freeze", "train.py", "--token", "***"]
    assert of_fix(fixes.SHARDS.word, {}, (), meta, LOADER, False) == ""


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("/data/set/a/1.jpg", "/data/set/b/2.jpg"), "--try ram=/data/set "),
        (("/data/set/a/1.jpg", "s3://bucket/2.jpg"), ""),
        (("/data/1.jpg", "/home/2.jpg"), ""),
        ((), ""),
    ],
)
def test_files_are_read_into_memory_from_the_directory_that_holds_them(
    paths: tuple[str, ...], expected: str
) -> None:
    reading = ReadingMeta(files=tuple(map(ReadFileMeta, paths)))
    words = ("pipeprof", "trace", "train.py")
    meta = RunMeta(kind="trace", command=words, script_words=1, reading=reading)
    tried = of_fix(fixes.RAM.word, {}, (), meta, LOADER, False)
    assert (expected in tried) if expected else tried == ""


def test_made_samples_are_kept_by_a_word_of_its_own() -> None:
    tried = of_fix(
        CACHED, {}, (), RunMeta(kind="trace", command=("p", "trace", "t.py"), script_words=1), LOADER, False
    )
    assert tried == "p trace --try cached t.py"


def test_a_scenario_is_run_with_other_keys() -> None:
    meta = RunMeta(
        kind="bench", command=("pipeprof", "run", "s.yaml", "--set", "loader.workers=1", "--out", "x")
    )
    assert (
        of_fix("more-workers", WORKERS, (), meta, LOADER, False)
        == "pipeprof run s.yaml --set loader.workers=4"
    )
    keys = ("storage.tier=nvme",)
    assert of_fix("faster-storage", {}, keys, meta, LOADER, False).endswith("--set storage.tier=nvme")


@pytest.mark.parametrize(
    "meta",
    [
        RunMeta(kind="wrapper", command=("train.py",)),
        RunMeta(kind="trace", command=("pipeprof", "trace", "x.py"), script_words=1, world_size=2),
        RunMeta(
            kind="bench",
            command=("pipeprof", "run", "matrix.yaml"),
            scenario=ScenarioMeta(resolved={"cell": {"loader.workers": 1}}),
        ),
    ],
)
def test_no_command_where_it_would_not_be_this_run(meta: RunMeta) -> None:
    assert of_fix("more-workers", WORKERS, (), meta, LOADER, False) == ""


@pytest.mark.parametrize(
    ("fix", "option"),
    [
        ("fork", "--set loader.multiprocessing_context=fork"),
        ("one-thread", "--try one-thread"),
        ("file-system-sharing", "--try file-system-sharing"),
    ],
)
def test_a_fix_that_is_the_same_on_every_run_is_an_option_of_trace(fix: str, option: str) -> None:
    words = ("pipeprof", "trace", "--out", "runs/1", "train.py", "--lr=1")
    traced = RunMeta(kind="trace", command=words, script_words=2)
    assert of_fix(fix, {}, (), traced, LoaderMeta(0), False) == f"pipeprof trace {option} train.py --lr=1"
    assert of_fix("keep-open", {}, (), traced, LoaderMeta(0), False) == ""


def longer(command: str, steps: int = 10, wall_ns: int = 500 * MS, **meta: Any) -> str:
    return of_longer(RunMeta(command=tuple(command.split()), **meta), steps, wall_ns)


def test_a_scenario_is_measured_for_longer() -> None:
    scenario = ScenarioMeta(resolved={"run": {"steps": 15, "seconds": 4.0, "epochs": None}})
    asked = longer(
        "pipeprof run s.yaml --set run.steps=15 --out x", kind="bench", scenario=scenario, warmup_steps=5
    )
    assert asked == "pipeprof run s.yaml --set run.steps=65 --set run.seconds=18", "60 steps of 50 ms are 3 s"


def test_a_script_that_was_stopped_is_let_run() -> None:
    command = "pipeprof trace --steps 10 --seconds=3 train.py --steps 9"
    asked = longer(command, kind="trace", script_words=3, stopped="after 10 steps")
    assert asked == "pipeprof trace --steps 60 train.py --steps 9"
    assert longer(command, kind="trace", script_words=3) == "", "it ended by itself"
    assert longer("train.py", kind="wrapper") == ""
