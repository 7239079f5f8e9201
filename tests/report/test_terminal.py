from __future__ import annotations

import io
import re

import pytest

from pipeprof.report import terminal
from pipeprof.simulate.answer import Answer
from tests.report.test_html import ODD


def shown(answer: Answer, report: str | None = "runs/x/report.html") -> str:
    file = io.StringIO()
    terminal.show(answer, report, file)
    return file.getvalue()


def test_it_answers_in_order_and_says_what_is_emulated(stalled: Answer) -> None:
    text = shown(stalled)
    parts = [
        "The accelerator waited",
        "Stall",
        "Emulated",
        "Do this first",
        "Where each step",
        "Waits",
        "Report:",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_table_sums_to_the_whole(stalled: Answer) -> None:
    assert re.search(r"sum .* 100 %", shown(stalled))


@pytest.mark.parametrize("name", ODD)
def test_forty_lines_of_eighty_columns_at_most(odd: dict[str, Answer], name: str) -> None:
    lines = shown(odd[name]).splitlines()
    assert len(lines) <= terminal.MOST_LINES
    assert max(map(len, lines)) <= terminal.WIDTH


def test_plain_where_it_is_no_terminal(odd: dict[str, Answer]) -> None:
    assert "\x1b" not in shown(odd["hostile"])


def test_no_colour_on_a_terminal_that_asks_for_none(stalled: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    terminal.show(stalled, file=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show(stalled, file=plain)
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", coloured.getvalue())
    assert not re.search(r"\x1b\[[0-9;]*[349][0-9]", plain.getvalue())


def test_control_characters_of_users_names_do_not_drive_the_terminal() -> None:
    assert terminal.clean("a\x1b[31mb\x07\u202ec") == "a�[31mb��c"
