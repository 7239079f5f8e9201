"""The benchmark of AU against DLIO's: one real cell, and that it fails where the two lie apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import au


def test_au_is_dlios_formula_over_the_same_run(tmp_path: Path) -> None:
    found = au.Compared(*au.formula(au.Case(step_ms=5.0, load_share=1.5, steps=40), tmp_path))
    assert found.held, f"{found.points:+.2f} points"
    assert 0.05 < found.ours < 0.95


@pytest.mark.parametrize(
    ("theirs", "arguments", "code"),
    [
        ({"formula": 0.509, "loop": 0.491}, [], 0),
        ({"formula": 0.511, "loop": 0.5}, [], 1),
        ({"formula": 0.5, "loop": 0.45}, [], 1),
        ({"formula": 0.5, "loop": 0.45}, ["--only", "formula"], 0),
    ],
)
def test_more_than_a_point_fails_the_comparison_it_is_in(
    theirs: dict[str, float],
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, share in theirs.items():
        monkeypatch.setitem(au.COMPARISONS, name, lambda case, place, share=share: (0.5, share))
    assert au.main(["--repeats", "1", *arguments]) == code
    said = capsys.readouterr().out.splitlines()[-2:]
    outside = [line.partition(":")[0] for line in said if "OUTSIDE" in line]
    assert outside == [name for name in theirs if abs(theirs[name] - 0.5) > 0.01 and code]
