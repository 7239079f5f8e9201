"""Runs of others: one bad among many hides no other, and none of their names drives a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.errors import TraceError
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.forked import Program

EVIL: Final = "\x1b]0;pwned\x07\x1b[31mred\u202e"
BAD: Final = ('{"schema":1, "x": ', "[" * 100_000, '{"schema": 99}')


def verbs(*calls: tuple[str, ...], cwd: Path) -> tuple[int, str]:
    """What several verbs print, to something that claims to be a terminal, in one copy of this process."""

    def main() -> None:
        import sys

        from pipeprof.cli import main as door

        for stream in (sys.stdout, sys.stderr):
            stream.isatty = lambda: True  # type: ignore[method-assign]
        codes = []
        for call in calls:
            sys.argv = ["pipeprof", *call]
            try:
                door()
            except SystemExit as error:
                codes.append(error.code or 0)
        sys.exit(max(codes))

    done = Program(main, cwd).finished()
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        make_run(tmp_path / name, Plan(batches=40), created_at="2026-01-01T00:00:00+00:00")
    make_run(tmp_path / "bad", Plan(batches=40))
    (tmp_path / "bad" / "steps.parquet").write_bytes(b"PAR1 no more PAR1")
    return tmp_path


ODD: Final[dict[str, Any]] = {
    "another type for an answer": {"schema": True},
    "nested": {"schema": 1, "x": {"a": [[[[]]]]}},
    "a process that cannot be": {"schema": 1, "status": "running", "pid": 2**70},
    "half of a character": {"schema": 1, "status": "complete", "name": "\ud800", "error": "\udfff"},
    "a command of a number": {"schema": 1, "status": "complete", "command": 5, "scenario": {"text": True}},
    "parts of other types": {
        "schema": 1,
        "loaders": [True, {}, 5],
        **dict.fromkeys(("accelerator", "machine", "not_observed", "emulated", "warnings"), 5),
        "storage": {"model": "x"},
    },
    "nothing else": {"schema": 1, "status": "complete"},
}


def test_a_run_json_of_other_types_is_an_answer_or_one_clear_error(tmp_path: Path) -> None:
    """Alone, without tables: what is answered is labelled, for the page and the terminal too."""
    for name, keys in ODD.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(keys))
        code, shown = verbs(("report", "--json", name), cwd=tmp_path)
        if code == 0:
            assert json.loads(shown)["verdict"]["cause"] == "inconclusive", name
        else:
            assert (code, shown.count("pipeprof: ")) == (2, 1), name
        assert verbs(("report", name), cwd=tmp_path)[0] == code, name


def test_one_bad_run_is_left_out_of_a_comparison(runs: Path) -> None:
    code, shown = verbs(("compare", "a", "bad", "b"), cwd=runs)
    assert code in (0, 3) and "b against a" in shown and "bad is left out" in shown
    code, shown = verbs(("compare", "a", "bad"), cwd=runs)
    assert code == 2 and "steps.parquet cannot be read" in shown


@pytest.mark.parametrize("text", BAD)
def test_one_bad_run_stays_where_others_are_listed_and_deleted(text: str, runs: Path) -> None:
    (runs / "bad" / "run.json").write_text(text)
    code, shown = verbs(("list", "."), ("clean", ".", "--older-than", "1d", "--yes"), ("list", "."), cwd=runs)
    assert code == 0 and "unreadable" in shown
    assert [path.name for path in runs.iterdir() if path.is_dir()] == ["bad"]


@pytest.mark.parametrize("damaged", ["run.json", "steps.parquet", "batches.parquet"])
def test_one_bad_rank_is_left_out_of_a_job(damaged: str, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(ranks=3))
    (job / "rank-1" / damaged).write_bytes(b"PAR1 no more PAR1")
    merged = merge([job])
    assert [row.rank for row in merged.ranks] == [0, 2]
    assert {"unreadable-ranks", "missing-ranks"} <= {doubt.name for doubt in merged.doubts}
    for rank in (0, 2):
        (job / f"rank-{rank}" / damaged).write_bytes(b"")
    with pytest.raises(TraceError, match=r"cannot be read|is not a run"):
        merge([job])


def test_no_name_drives_the_terminal(tmp_path: Path) -> None:
    stages = {"read": MS, f"stage:{EVIL}": 60 * MS, "collate": MS}
    for name, form in (("a", "x"), ("b", EVIL)):
        make_run(tmp_path / name, Plan(batches=40, stages=stages), name=EVIL, data={"format": form})
    calls = (("report", "a"), ("predict", "a"), ("compare", "a", "b"), ("check", "a", "--max-stall", "5%"))
    shown = verbs(*calls, ("list", "."), ("report", "--markdown", "a"), cwd=tmp_path)[1]
    assert "red" in shown
    for driver in ("\x1b]0;", "\x1b[31mred", "\u202e", "\x07"):
        assert driver not in shown


def test_the_json_of_hostile_names_is_json(tmp_path: Path) -> None:
    make_run(tmp_path / "a", Plan(batches=40, stages={f"stage:{EVIL}": 60 * MS, "collate": MS}), name=EVIL)
    assert json.loads(verbs(("report", "--json", "a"), cwd=tmp_path)[1])["schema"] == 1
