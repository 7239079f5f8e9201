from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.report.wording import words
from pipeprof.report.wording.view import stall_line, view_of
from pipeprof.vocabulary import bands, owners
from tests.factory import Plan, make_run

OWNERS = [
    "accelerator",
    "storage",
    "decode",
    "transform:Resize",
    "stage:mine",
    "collate",
    "no such owner",
]


def test_contrast_is_that_of_wcag() -> None:
    assert words.contrast("#ffffff", "#000000") == pytest.approx(21)
    assert words.contrast("#777777", "#ffffff") == pytest.approx(
        4.478, abs=0.001
    )  # the usual example of "just not"


@pytest.mark.parametrize(
    "name",
    [
        *(owner.name for owner in owners.OWNERS),
        *(f"transform:{n}" for n in "abcdefghij"),
        *(f"stage:{n}" for n in "abcdefghij"),
    ],
)
def test_text_on_each_owner_can_be_read(name: str) -> None:
    colour = words.colour(name)
    assert words.contrast(colour, words.ink(colour)) >= 4.5


def test_a_stage_and_the_owner_it_is_charged_to_have_one_colour() -> None:
    assert words.drawn_stage("read").colour == words.colour("storage")
    assert words.drawn_stage("getitem") == words.drawn("stage:getitem")


def test_one_name_has_one_colour_and_an_unknown_one_has_one_too() -> None:
    assert [words.colour(name) for name in OWNERS] == [words.colour(name) for name in OWNERS]
    assert words.drawn("no such owner").label == "no such owner"
    assert words.drawn("transform:Resize").label == "Resize"


@pytest.mark.parametrize("part", [words.OTHERS, words.WAITING, words.IDLE])
def test_a_part_of_a_chart_that_is_no_owner_is_drawn_too(part: str) -> None:
    assert words.drawn(part).label != part
    assert words.contrast(words.colour(part), words.ink(words.colour(part))) >= 4.5


def test_neighbours_of_the_bar_differ_in_lightness_too() -> None:
    """Read without hue: storage, decode and the accelerator are apart for any eye."""
    for one, two in (("storage", "decode"), ("decode", "transform"), ("accelerator", "storage")):
        assert words.contrast(words.colour(one), words.colour(two)) > 1.25


@pytest.mark.parametrize(
    ("share", "interval", "said"),
    [
        (0.26, (0.15, 0.36), "(95% CI 15–36%), highly input-bound, perhaps moderately."),
        (0.06, (0.02, 0.09), "(95% CI 2.0–9.0%), moderately input-bound, perhaps not."),
        (0.84, (0.83, 0.85), "(95% CI 83–85%), highly input-bound."),
    ],
)
def test_a_band_is_not_surer_than_its_interval(
    tmp_path: Path, share: float, interval: tuple[float, float], said: str
) -> None:
    found = load(make_run(tmp_path / "run", Plan(batches=150)))
    view = view_of(found.run, found.verdict)
    changed = replace(
        view, stall_share=share, stall_ns=1, stall_interval=interval, band=bands.band_of(share).word
    )
    assert stall_line(changed).endswith(said)
