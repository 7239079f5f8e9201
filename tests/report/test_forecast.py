"""Predictions as text: a terminal holds them, and nothing stands there bare."""

from __future__ import annotations

from dataclasses import replace

from pipeprof.report import advice, forecast
from pipeprof.report.facts import facts
from pipeprof.report.footnotes import Footnotes, merged
from pipeprof.simulate.answer import Answer
from pipeprof.simulate.fixes import Ranked
from pipeprof.simulate.search import heat_map

FAR = "64 workers from a run with 2: far from what was measured"


def test_the_table_of_fixes_says_what_each_rests_on(stalled: Answer) -> None:
    assert stalled.base is not None
    lines = list(forecast.fix_lines(stalled.fixes, stalled.base.extrapolations))
    text = " ".join(" ".join(lines).split())
    for one in stalled.fixes:
        assert one.fix.assumption in text
    assert "16 cores: this machine has 8; more are extrapolated" in text
    row = next(line for line in lines if line.startswith("16 cores"))
    number = row.split()[2]
    assert number in "¹²³⁴⁵⁶⁷⁸⁹"
    assert any(line.startswith(f"{number} 16 cores: this machine") for line in lines)


def test_no_line_is_wider_than_a_terminal(stalled: Answer) -> None:
    assert stalled.base is not None and stalled.demands is not None
    first = stalled.fixes[0]
    long = replace(first.fix, title=f"{'AVeryLongTransformName' * 3} on the accelerator", ram_bytes=10**12)
    fixes = [*stalled.fixes, replace(first, fix=replace(long, cores=64.0), feasible=False)]
    lines = list(forecast.fix_lines(fixes))
    assert max(map(len, lines)) <= 100
    assert any("more memory than this machine has" in line for line in lines)
    found = heat_map(stalled.demands, stalled.demands.measured, (2, 12, 16), (1, 2, 4, 8), 30)
    lines = list(forecast.heat_map_lines(found, (2, 2)))
    assert max(map(len, lines)) <= 100
    assert lines[3].startswith("12\u00a0¹") and lines[4].startswith("16\u00a0¹")
    assert "¹ 12, 16 workers from a run with 2: far from what was measured" in lines
    assert any(line.startswith("Intervals reach from −") for line in lines)


def test_a_footnote_is_told_once() -> None:
    notes = Footnotes(told=("known",))
    assert notes.mark("a", ["known", "8 cores: more than here", "assumed"]) == "a\u00a0¹\u00a0²"
    assert notes.mark("b", ["16 cores: more than here", "8 cores: more than here", ""]) == "b\u00a0¹"
    assert notes.mark("c", ["known"]) == "c"
    assert list(notes.lines()) == ["¹ 8, 16 cores: more than here", "² assumed"]
    assert merged(["x", "2.5 y", "x", "3 y"]) == ["x", "2.5, 3 y"]


def one_of(answer: Answer, word: str) -> Ranked:
    return next(one for one in answer.fixes if one.fix.word == word)


def test_more_cores_are_a_card_only_where_the_verdict_names_them(stalled: Answer) -> None:
    cores = replace(one_of(stalled, "more-cores"), gain=9.0)
    answer = replace(stalled, fixes=(cores, *stalled.fixes))
    assert "more-cores" not in [one.fix.word for one in advice.best(answer)]
    named = replace(answer, verdict=replace(answer.verdict, fix="more-cores"))
    assert "more-cores" in [one.fix.word for one in advice.best(named)]


def test_a_card_says_how_far_it_reaches(stalled: Answer) -> None:
    far = one_of(stalled, "more-workers")
    far = replace(far, gain=9.0, prediction=replace(far.prediction, extrapolations=(FAR,)))
    answer = replace(stalled, fixes=(far,))
    card = advice.cards(answer, facts(answer))[0]
    assert f"Extrapolated: {FAR}." in card["note"]
    assert any(FAR in row.how for row in advice._fixes(answer).rows)
    known = replace(answer, base=replace(answer.base, extrapolations=(FAR,)))  # type: ignore[type-var]
    assert "Extrapolated" not in advice.cards(known, facts(known))[0]["note"], "it holds for all of the page"
