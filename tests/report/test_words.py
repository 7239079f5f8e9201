from __future__ import annotations

import pytest

from pipeprof.report import words

OWNERS = [
    "accelerator",
    "storage",
    "read",
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
    "name", [*words.ORDER, *(f"transform:{n}" for n in "abcdefghij"), *(f"stage:{n}" for n in "abcdefghij")]
)
def test_text_on_each_owner_can_be_read(name: str) -> None:
    colour = words.colour(name)
    assert words.contrast(colour, words.ink(colour)) >= 4.5


def test_a_stage_and_the_owner_it_is_charged_to_have_one_colour() -> None:
    assert words.colour("read") == words.colour("storage")


def test_one_name_has_one_colour_and_an_unknown_one_has_one_too() -> None:
    assert [words.colour(name) for name in OWNERS] == [words.colour(name) for name in OWNERS]
    assert words.owner("no such owner").label == "no such owner"
    assert words.owner("transform:Resize").label == "Resize"
    assert words.family("transform:Resize") == "transform"


def test_neighbours_of_the_bar_differ_in_lightness_too() -> None:
    """Read without hue: storage, decode and the accelerator are apart for any eye."""
    for one, two in (("storage", "decode"), ("decode", "transform"), ("accelerator", "storage")):
        assert words.contrast(words.colour(one), words.colour(two)) > 1.25
