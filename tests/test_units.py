from __future__ import annotations

import math

import pytest

from pipeprof import units


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (999_600, "1.00 ms"),
        (45_200_000_000, "45.2 s"),
        (125_000_000_000, "2 min 5 s"),
        (7_500_000_000_000, "2 h 5 min"),
        (None, "not observed"),
        (math.nan, "not observed"),
        (math.inf, "not observed"),
    ],
)
def test_durations_read_as_people_say_them(ns: float | None, text: str) -> None:
    assert units.duration(ns) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (0.0001, "< 0.1%"),
        (0.042, "4.2%"),
        (0.2749, "27%"),
        (0.985, "98%"),
        (0.992, "99.2%"),
        (0.9999, "> 99.9%"),
        (1.0, "100%"),
        (None, "not observed"),
    ],
)
def test_shares_keep_the_digit_that_matters(share: float | None, text: str) -> None:
    assert units.percent(share) == text


def test_sizes_and_rates() -> None:
    assert units.size(110_000) == "110 KB"
    assert units.byte_rate(112e6) == "112 MB/s"
    assert units.sample_rate(1412.3) == "1,412 samples/s"
    assert units.count(2_000_000) == "2,000,000"
    assert units.plural(1, "step") == "1 step"
    assert units.plural(2000, "step") == "2,000 steps"
    assert units.interval((0.24, 0.301)) == "24–30%"
    assert units.interval(None) == ""


@pytest.mark.parametrize("value", [10**300, -(10**300), 1e-300, 5e-324, 1.7e308])
def test_absurd_figures_stay_short(value: float) -> None:
    for write in (units.duration, units.size, units.byte_rate, units.digits, units.count, units.sample_rate):
        assert len(write(value)) < 40


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (0.12, "+12%"),
        (-0.399, "−40%"),
        (0.0, "0%"),
        (-0.0004, "0%"),
        (0.032, "+3.2%"),
        (9.9, "+990%"),
        (355.52, "357×"),
        (-0.9997, "< −99.9%"),
        (None, "not observed"),
    ],
)
def test_changes_carry_their_sign(change: float | None, text: str) -> None:
    assert units.signed_percent(change) == text


@pytest.mark.parametrize(
    ("change", "text"), [(0.042, "+4.2 points"), (-0.27, "−27 points"), (None, "not observed")]
)
def test_differences_of_shares_are_points(change: float | None, text: str) -> None:
    assert units.signed_points(change) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(4, "4"), (2.5, "2.5"), (1 / 3, "0.333"), (4096, "4,096"), (None, "not observed")],
)
def test_what_was_set_or_counted_has_no_zeros_behind_it(number: float | None, text: str) -> None:
    assert units.amount(number) == text


def test_cores_are_counted_in_words() -> None:
    assert [units.cores(number) for number in (1, 2.5, 4.0)] == ["1 core", "2.5 cores", "4 cores"]
