"""Progress: plain lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import pytest

from pipeprof.measure import progress as module
from pipeprof.measure.progress import progress


class Clock:
    """A clock that is set by hand."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def test_without_a_terminal_a_line_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with progress("making [things]", 100) as done:
        for count in range(1, 101):
            clock.now_s += 0.11  # 11 s in all
            done(count)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["making [things]: 46 of 100", "making [things]: 92 of 100"]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("loading", 3) as done:
        done(3)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_that_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with progress("loading", 30) as done:
        done(30)
    said = capsys.readouterr().err
    assert "30/30" in said
    assert "\x1b[2K" in said  # the line is cleared
