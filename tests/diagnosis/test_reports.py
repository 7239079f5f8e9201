"""Public reports of slow input pipelines: the judgement itself, and what pipeprof says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.vocabulary import fixes
from tests.diagnosis.reports.exam import Said, blamed, examine, graded, no_disk_limit_here
from tests.diagnosis.reports.truth import TRUTHS, Truth
from tests.timing import Timing

BY_NAME = {truth.script: truth for truth in TRUTHS}
SHORT = ("float32_over_the_wire", "graphs_in_batch")
"""Of those that are told right, the two that the slow tests run."""


def said(cause: str, fix: str, mechanism: str | None = None, hot: tuple[str, int] | None = None) -> Said:
    return Said(cause, None, mechanism, fix, 0.5, hot)


@pytest.mark.parametrize(
    ("name", "verdict", "grade"),
    [
        ("zip_reopened", said("stage:getitem", "keep-open", "reopened"), "right"),
        ("zip_reopened", said("stage:getitem", "keep-open"), "half"),
        ("zip_reopened", said("stage:getitem", "cheaper-decode", "reopened"), "half"),
        ("zip_reopened", said("decode", "keep-open", "reopened"), "wrong"),
        ("zip_reopened", said("stage:getitem", "ram", "reopened"), "forbidden"),
        ("zip_reopened", said("storage-latency", "keep-open", "reopened"), "forbidden"),
        ("zip_reopened", said("inconclusive", "none"), "abstained"),
        ("float32_over_the_wire", said("transfer", "lighter-transfer"), "right"),
        ("float32_over_the_wire", said("transfer", "lighter-transfer", "gc"), "half"),
        ("iterator_per_step", said("inconclusive", "none"), "abstained"),
        ("iterator_per_step", said("inconclusive", "one-iterator", "iterator-per-step"), "right"),
        ("snapshot_every_step", said("stage:state_dict", "cheaper-work"), "right"),
    ],
)
def test_a_verdict_is_judged_by_the_truth(name: str, verdict: Said, grade: str) -> None:
    assert graded(BY_NAME[name], verdict)[0] == grade


@pytest.mark.parametrize(("advised", "grade"), [("cheaper-work", "right"), ("ram", "forbidden")])
def test_all_that_is_advised_is_judged(advised: str, grade: str) -> None:
    """A fix that the verdict does not name stands on the page too."""
    verdict = replace(said("stage:getitem", "keep-open", "reopened"), advised=("keep-open", advised))
    assert graded(BY_NAME["zip_reopened"], verdict)[0] == grade


def test_the_first_hot_line_is_compared_with_the_marked_ones() -> None:
    truth = BY_NAME["gc_every_batch"]
    (line,) = truth.blamed
    assert "gc.collect()" in truth.path.read_text().splitlines()[line - 1]
    assert blamed(truth, said("collate", "gc-freeze", hot=("gc_every_batch.py", line))) == "yes"
    assert blamed(truth, said("collate", "gc-freeze", hot=("gc_every_batch.py", 3))).startswith("no")
    assert blamed(truth, said("collate", "gc-freeze")) == "–"


def test_what_a_report_lacks_is_none() -> None:
    verdict = json.loads('{"cause": "main", "detail": null, "fix": "loop", "stall_share": null}')
    assert Said.of(verdict) == Said("main", None, None, "loop", None, None)
    hot = {"owner": "main", "file": "a/train.py", "line": 7, "function": "main", "share": 0.9}
    assert Said.of({**verdict, "hot": [hot]}).hot == ("train.py", 7)


def test_every_script_has_its_truth() -> None:
    scripts = {path.stem for path in Path(__file__).with_name("reports").glob("*.py")}
    assert scripts - {"__init__", "__main__", "exam", "truth"} == set(BY_NAME)
    assert all("#" in truth.source for truth in TRUTHS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scripts make for themselves."""
    return tmp_path_factory.mktemp("data")


def told_right(truth: Truth, data: Path, out: Path, timing: Timing) -> None:
    """Run the script, once more where the machine was busy, and judge what pipeprof says and advises."""
    if truth.disk_bytes_per_s and (why := no_disk_limit_here()):
        pytest.skip(why)

    def attempt(number: int) -> None:
        verdict = examine(truth, data, out / str(number))
        if timing.busy and fixes.FREE_CORES.word in verdict.advised:
            # true of the machine, whatever was planted
            advised = tuple(word for word in verdict.advised if word != fixes.FREE_CORES.word)
            verdict = replace(verdict, advised=advised)
            timing.excuse = "other programs kept cores busy, and freeing them is advised"
        if not timing.explains(verdict.cause, verdict.detail):
            assert graded(truth, verdict) == ("right", "")

    timing.attempts(attempt)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SHORT)
def test_a_short_report_is_told_right(name: str, data: Path, tmp_path: Path, timing: Timing) -> None:
    told_right(BY_NAME[name], data, tmp_path, timing)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in SHORT])
def test_a_report_is_told_right(name: str, data: Path, tmp_path: Path, timing: Timing) -> None:
    """Some of them still fail: scores/ has the counts."""
    told_right(BY_NAME[name], data, tmp_path, timing)
