from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.answer import Answer, load
from pipeprof.errors import InconclusiveError, PipeprofError
from pipeprof.report import compare as shown
from pipeprof.report.differences import compare
from tests.factory import MS, Plan, make_run
from tests.report.hostile import SCRIPT
from tests.report.test_html import Page

pytestmark = pytest.mark.slow

Make = Callable[..., Answer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Runs of one scenario that differ by their seed, and by what is planted."""

    def made(seed: int, decode: int = 60 * MS, **meta: Any) -> Answer:
        stages = {"read": 30 * MS, "decode": decode, "collate": 4 * MS}
        plan = Plan(batches=300, workers=4, stages=stages, jitter=0.1, seed=seed, spans_every=0)
        return load(make_run(tmp_path / f"run{seed}", plan, **meta))

    return made


def test_the_same_again_is_no_difference_beyond_noise(make: Make) -> None:
    found = compare([make(1), make(2)])[0]
    assert all(one.says == "no difference beyond noise" for one in found.differences)


def test_slower_decoding_is_worse_and_named(make: Make) -> None:
    found = compare([make(1), make(2, decode=90 * MS)])[0]
    rate, stall = found.differences[:2]
    assert rate.says == stall.says == "worse"
    assert rate.low is not None and rate.high is not None and rate.low < (rate.value or 0) < rate.high < 0
    largest = max(found.owners, key=lambda one: one.value or 0)
    assert largest.measure.key == "decode" and largest.says == "more"


def test_the_difference_is_of_the_right_size(make: Make) -> None:
    base, other = make(1), make(2, decode=90 * MS)
    rate = compare([base, other])[0].differences[0]
    assert rate.relative == pytest.approx((4 + 30 + 60) / (4 + 30 + 90) - 1, abs=0.05)


def test_other_data_or_another_accelerator_is_refused_unless_forced(make: Make) -> None:
    base = make(1)
    for meta in (
        {"data": {"format": "tensor_files", "samples": 10}},
        {"accelerator": {"kind": "cuda", "name": "H100"}},
    ):
        other = make(hash(str(meta)) % 1000 + 10, **meta)
        with pytest.raises(PipeprofError, match="cannot be compared"):
            compare([base, other])
        assert compare([base, other], force=True)[0].unlike


def test_too_few_runs_or_steps_are_refused(make: Make, odd: dict[str, Answer]) -> None:
    with pytest.raises(PipeprofError, match="one run alone"):
        compare([make(1)])
    with pytest.raises(InconclusiveError, match="no measured step"):
        compare([make(2), odd["bare"]])


def test_each_form_says_the_same(make: Make, tmp_path: Path) -> None:
    found = compare([make(1), make(2, decode=90 * MS)])
    text = "\n".join(line.plain for line in shown.lines(found))
    assert all(len(line) <= 80 for line in text.splitlines())
    markdown = shown.markdown(found)
    data = json.loads(json.dumps(shown.as_data(found)))
    page = Page(shown.write_html(found, tmp_path / "compare.html").read_text())
    change = shown.change(found[0].differences[0])
    assert change in text and change in markdown and change in page.text
    assert data[0]["differences"][0]["difference"] == found[0].differences[0].value
    assert "emulated" in text and "emulated" in markdown and "emulated" in page.text


def test_markup_in_names_stays_text(make: Make, tmp_path: Path) -> None:
    found = compare([make(1), make(2, emulated=[SCRIPT, "a|b"])])
    markdown = shown.markdown(found)
    assert "<script" not in markdown and "a\\|b" in markdown
    page = Page(shown.write_html(found, tmp_path / "compare.html").read_text())
    assert not [tag for tag, _ in page.elements if tag == "img"]
