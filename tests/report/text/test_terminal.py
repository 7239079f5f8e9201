from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.analyse.harm import warning
from pipeprof.analyse.why.lines import Lines
from pipeprof.report.page.lines import which_lines
from pipeprof.report.page.source import no_source
from pipeprof.report.text import terminal
from pipeprof.report.wording.advice import cards
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.forecast import Forecast
from tests.factory import MS, Plan, Sampled, loader_meta, make_run
from tests.report.page.test_html import ODD

COMMAND = "  pipeprof "
"""Beginning of a command: it stays on one line, to be copied."""


def shown(answer: Forecast, report: str | None = "runs/x/report.html") -> str:
    file = io.StringIO()
    terminal.show(answer, report, file)
    return file.getvalue()


def test_it_answers_in_order_and_says_what_is_emulated(stalled_forecast: Forecast) -> None:
    text = shown(stalled_forecast)
    parts = [
        "Verdict  The emulated accelerator",
        "Next     ",
        "Waiting for data:",
        "Emulated",
        "Do this first",
        "Where each step",
        "Waits",
        "Report:",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_an_inconclusive_run_concludes_nothing(tmp_path: Path) -> None:
    plan = Plan(batches=15, warmup=5, stages={"read": 200 * MS})
    command = ["pipeprof", "run", "s.yaml"]
    text = shown(Forecast(load(make_run(tmp_path / "run", plan, command=command))))
    assert "Verdict  This run is inconclusive: only 10 steps" in text
    assert "Next     Measure at least 20 steps and 2 s" in text
    assert "pipeprof run s.yaml --set run.steps=" in text
    assert "no verdict" in text
    for concluding in ("input-bound", "Do this first", "After that", "Why "):
        assert concluding not in text


def test_the_whole_report_leaves_no_owner_out(
    stalled_forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "MOST_OWNERS", 2)
    owners = [row.label for row in view_of(stalled_forecast.analysis.run, stalled_forecast.publish()).owned]
    short, whole = io.StringIO(), io.StringIO()
    terminal.show(stalled_forecast, file=short)
    terminal.show(stalled_forecast, file=whole, in_full=True)
    assert f"  {len(owners) - 2} other" in short.getvalue()
    assert not re.search(r"^  \d+ other", whole.getvalue(), re.M)
    assert all(label in whole.getvalue() for label in owners)


def test_the_table_sums_to_the_whole(stalled_forecast: Forecast) -> None:
    assert re.search(r"sum .* 100%", shown(stalled_forecast))


@pytest.mark.parametrize("name", ODD)
def test_a_file_gets_every_line_of_eighty_columns(odd_forecasts: dict[str, Forecast], name: str) -> None:
    lines = shown(odd_forecasts[name]).splitlines()
    assert "more lines in the page" not in "".join(lines)
    assert max(map(len, lines)) <= terminal.WIDTH


def test_a_low_terminal_says_how_many_lines_the_page_has_more(stalled_forecast: Forecast) -> None:
    whole = terminal.lines(stalled_forecast, most=None)
    low = [line.plain for line in terminal.lines(stalled_forecast, most=10)]
    assert low[-1] == f"… {len(whole) - 9} more lines in the page"
    assert low[:-1] == [line.plain for line in whole[:9]]


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ODD)
def test_it_is_as_wide_as_the_terminal_and_nothing_is_cut(
    odd_forecasts: dict[str, Forecast], name: str, width: int
) -> None:
    said = [line.plain for line in terminal.lines(odd_forecasts[name], width=width)]
    assert len(said) <= terminal.MOST_LINES
    assert max(len(line) for line in said if not line.startswith(COMMAND)) <= width
    words = terminal.clean(view_of(odd_forecasts[name].analysis.run, odd_forecasts[name].verdict).headline)
    assert "".join(words.split()) in "".join("".join(said).split())


def test_columns_are_taken_from_the_environment(
    stalled_forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert 80 < max(map(len, shown(stalled_forecast, None).splitlines())) <= 100


def test_an_old_encoding_gets_signs_that_look_alike(stalled_forecast: Forecast) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    terminal.show(stalled_forecast, file=file)
    text = raw.getvalue().decode("ascii")
    assert "Verdict" in text and "##" in text and "?" not in text


def test_plain_where_it_is_no_terminal(odd_forecasts: dict[str, Forecast]) -> None:
    assert "\x1b" not in shown(odd_forecasts["hostile"])


def test_no_colour_on_a_terminal_that_asks_for_none(
    stalled_forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    terminal.show(stalled_forecast, file=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show(stalled_forecast, file=plain)
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", coloured.getvalue())
    assert not re.search(r"\x1b\[[0-9;]*[349][0-9]", plain.getvalue())


def test_control_characters_of_users_names_do_not_drive_the_terminal() -> None:
    assert terminal.clean("a\x1b[31mb\x07\u202ec") == "a�[31mb��c"


def test_up_to_three_lines_that_cost_a_tenth_are_named(tmp_path: Path) -> None:
    file = "/home/me/project/data.py"
    shares = {10: 60, 20: 25, 30: 9, 40: 6}
    sampled = [
        Sampled("decode", ((file, number, "load"),), share * MS, worker=0) for number, share in shares.items()
    ]
    run = make_run(tmp_path / "run", Plan(stages={"decode": 60 * MS}, lines=sampled))
    text = shown(Forecast(load(run)))
    assert "Line     60% of the time in decode, at data.py:10 in load" in text
    assert f"\n{' ' * terminal.INDENT}25% at data.py:20 in load" in text
    assert "data.py:30" not in text, "less than a tenth of the time"


def test_lines_that_were_off_are_told_by_both_doors() -> None:
    section = which_lines(Lines(()), no_source)
    assert "profile(loader, lines=True)" in section.missing and "pipeprof trace" in section.missing


def test_each_fix_carries_the_harm_that_it_does_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(batches=120, workers=1, stages={"read": 20 * MS, "decode": 40 * MS})
    forecast = Forecast(load(make_run(tmp_path / "run", plan, loaders=[loader_meta(plan, iterable=True)])))
    harms = {each.fix.word: warning(each.fix.word, forecast.analysis.facts) for each in forecast.fixes}
    harmless = next(each for each in forecast.fixes if harms[each.fix.word] is None)
    harmful = next(each for each in forecast.fixes if each.fix.word == "more-workers")
    assert harms["more-workers"], "each worker would give the whole stream"
    monkeypatch.setattr(Forecast, "advice", [harmless, harmful])
    drawn = cards(forecast, view_of(forecast.analysis.run, forecast.verdict))
    assert [card.get("warning") for card in drawn[-2:]] == [None, harms["more-workers"]]
    assert f"Careful: {harms['more-workers']}" in " ".join(shown(forecast).split())
