"""The lines of an owner: the user's innermost one is named, with what it called."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.why.lines import Line, Lines, Stack
from tests.factory import MS, Plan, Sampled, make_run

pytestmark = pytest.mark.usefixtures("of_any_length")

LIBRARY = "/env/lib/python3.11/site-packages/numpy/core.py"
DATA, TRAIN = "/home/me/project/data.py", "/home/me/project/train.py"


def stack(stage: str, wall_ns: int, *lines: tuple[str, int, str], worker: int = 0) -> Stack:
    return Stack(stage, 0, worker, tuple(Line(*line) for line in lines), wall_ns, wall_ns, 1)


def test_the_users_innermost_line_is_named_with_the_call_below_it() -> None:
    lines = Lines(
        [
            stack("getitem", 70, (TRAIN, 1, "main"), (DATA, 41, "Set.__getitem__"), (LIBRARY, 5, "load")),
            stack("getitem", 20, (DATA, 41, "Set.__getitem__"), (LIBRARY, 9, "seek"), worker=1),
            stack("getitem", 10, (DATA, 44, "Set.__getitem__")),
            stack("collate", 99, (DATA, 60, "put")),
        ]
    )
    first, second = lines.hot("stage:getitem")
    assert (first.place, first.function, first.call, first.share) == (
        "data.py:41",
        "Set.__getitem__",
        "load",
        0.9,
    )
    assert (second.place, second.call, second.share) == ("data.py:44", "", 0.1)


def test_at_most_three_lines_of_five_percent_and_more() -> None:
    shares = (40, 30, 20, 6, 4)
    lines = Lines([stack("decode", share, (DATA, share, "f")) for share in shares])
    assert [line.line for line in lines.hot("decode")] == [40, 30, 20]
    few = Lines([stack("decode", share, (DATA, share, "f")) for share in (96, 4)])
    assert [line.line for line in few.hot("decode")] == [96]


def test_the_first_line_ends_the_heaviest_path() -> None:
    """A function that is spread over its lines comes before one costlier line of its caller."""
    calls, tokens = (TRAIN, 43, "packed"), "tokens_of"
    lines = Lines(
        [
            stack("decode", 33, (TRAIN, 49, "packed")),
            stack("decode", 30, calls, (DATA, 35, tokens)),
            stack("decode", 15, calls, (DATA, 32, tokens)),
            stack("decode", 12, calls, (DATA, 33, tokens)),
        ]
    )
    assert [line.line for line in lines.hot("decode")] == [35, 49, 32]


def test_the_samplers_lines_are_those_below_the_request_for_indices() -> None:
    torch = "/env/lib/python3.11/site-packages/torch/utils/data/dataloader.py"
    loop, asks = (TRAIN, 44, "main"), (torch, 715, "_BaseDataLoaderIter._next_index")
    lines = Lines(
        [
            stack("wait", 90, loop, asks, (DATA, 35, "Draws.__iter__"), worker=-1),
            stack("wait", 80, loop, (torch, 1466, "_MultiProcessingDataLoaderIter._get_data"), worker=-1),
        ]
    )
    (line,) = lines.in_sampler()
    assert (line.place, line.owner, line.share) == ("data.py:35", "main", 1.0)
    assert Lines([]).in_sampler() == ()


def test_the_lines_of_next_are_those_below_torchs_iterator() -> None:
    """What the script does between `iter(loader)` and its first request is sampled as a wait too."""
    torch = "/env/lib/python3.11/site-packages/torch/utils/data/dataloader.py"
    inside = stack("wait", 80, (TRAIN, 44, "main"), (torch, 725, "_BaseDataLoaderIter.__next__"), worker=-1)
    lines = Lines([inside, stack("wait", 90, (TRAIN, 40, "main"), worker=-1)])
    (line,) = lines.in_next()
    assert (line.place, line.share) == ("train.py:44", 1.0)


def test_the_end_of_python_is_no_line_of_the_loop() -> None:
    """The last batch's body is taken to last until the program ends."""
    ends = stack("main", 900, ("/usr/lib/python3.11/threading.py", 1139, "Thread.join"), worker=-1)
    lines = Lines([ends, stack("main", 50, (TRAIN, 40, "main"), worker=-1)])
    assert [line.place for line in lines.hot("main")] == ["train.py:40"]
    assert [line.line for line in Lines([ends]).hot("main")] == [1139]


def test_owners_stand_by_their_time_and_waiting_is_none() -> None:
    waits, loops = (stack(stage, 50, (TRAIN, 2, "main"), worker=-1) for stage in ("wait", "main"))
    lines = Lines([waits, stack("collate", 5, (DATA, 1, "f")), loops])
    assert lines.owners() == ("main", "collate")


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (DATA, "data.py"),
        ("/home/me/project/sets/scenes.py", "sets/scenes.py"),
        (LIBRARY, "numpy/core.py"),
        ("/usr/lib/python3.11/zipfile.py", "zipfile.py"),
        ("/usr/lib/python3/dist-packages/yaml/loader.py", "yaml/loader.py"),
        ("<string>", "<string>"),
    ],
)
def test_paths_are_shown_from_the_project_or_the_package(file: str, shown: str) -> None:
    lines = Lines(
        [stack("getitem", 1, (DATA, 1, "f")), stack("getitem", 1, ("/home/me/project/sets/s.py", 1, "f"))]
    )
    assert lines.shown(file) == shown


OPENS = ((DATA, 37, "Scenes.__getitem__"), ("/usr/lib/python3.11/zipfile.py", 1302, "ZipFile.__init__"))


def said(directory: Path, plan: Plan, **meta: object) -> str:
    return load(make_run(directory / "run", plan, **meta)).verdict.statement.line


def test_the_sentence_names_the_line_its_share_and_its_call(tmp_path: Path) -> None:
    sampled = (Sampled("getitem", OPENS, 91 * MS, worker=0), Sampled("getitem", OPENS[:1], 9 * MS, worker=0))
    plan = Plan(batches=40, stages={"getitem": 60 * MS}, lines=sampled[:1])
    assert said(tmp_path, plan) == (
        "100% of that time was spent at data.py:37 in Scenes.__getitem__, which calls ZipFile.__init__."
    )


def test_where_a_core_was_lacking_the_line_is_of_the_work_meanwhile(tmp_path: Path) -> None:
    """The line did not take the time that was waited for a core."""
    sampled = (Sampled("getitem", OPENS, 90 * MS, worker=0),)
    waits = {"runq_ns": 50 * MS, "cpu_ns": 10 * MS}
    plan = Plan(batches=40, stages={"getitem": 60 * MS}, lines=sampled, batch_columns=waits)
    text = said(tmp_path, plan)
    assert text.startswith("Meanwhile 100% of the time in __getitem__ was spent at data.py:37")


def test_mapped_files_are_read_by_the_line_that_touches_them(tmp_path: Path) -> None:
    """No call of Python's reads them: the samples fell in the data set's own code."""
    touches = Sampled("getitem", ((DATA, 12, "Records.__getitem__"),), 90 * MS, worker=0)
    stages = {"read": 50 * MS, "getitem": 10 * MS, "collate": MS}
    found = load(make_run(tmp_path / "run", Plan(batches=40, stages=stages, lines=(touches,)))).verdict
    assert found.cause.startswith("storage") and [line.place for line in found.hot] == ["data.py:12"]
    reads = Sampled("read", ((DATA, 30, "Records.load"),), 9 * MS, worker=0)
    found = load(make_run(tmp_path / "read", Plan(batches=40, stages=stages, lines=(touches, reads)))).verdict
    assert [line.place for line in found.hot] == ["data.py:30"]
