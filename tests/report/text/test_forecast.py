"""Predictions as text: a terminal holds them, and nothing stands there bare."""

from __future__ import annotations

from dataclasses import replace

from pipeprof.report.page import what_if
from pipeprof.report.text import forecast
from pipeprof.report.text.footnotes import Footnotes
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import view_of
from pipeprof.simulate.extrapolation import Extrapolation, merged
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.ranking import Choice, Ranked
from pipeprof.simulate.ranking import advice as advised
from pipeprof.simulate.search import heat_map

FAR = Extrapolation("workers from a run with 2: far from what was measured", 64)


def test_the_table_of_fixes_says_what_each_rests_on(stalled_forecast: Forecast) -> None:
    assert stalled_forecast.base is not None
    lines = list(forecast.fix_lines(stalled_forecast.fixes, stalled_forecast.base.extrapolations))
    text = " ".join(" ".join(lines).split())
    for one in stalled_forecast.fixes:
        assert one.fix.assumption in text
    assert "16 cores: this machine has 8; more are extrapolated" in text
    row = next(line for line in lines if line.startswith("16 cores"))
    number = row.split()[2]
    assert number in "¹²³⁴⁵⁶⁷⁸⁹"
    assert any(line.startswith(f"{number} 16 cores: this machine") for line in lines)


def test_no_line_is_wider_than_a_terminal(stalled_forecast: Forecast) -> None:
    assert stalled_forecast.base is not None and stalled_forecast.demands is not None
    first = stalled_forecast.fixes[0]
    long = replace(first.fix, title=f"{'AVeryLongTransformName' * 3} on the accelerator", ram_bytes=10**12)
    fixes = [*stalled_forecast.fixes, replace(first, fix=replace(long, cores=64.0), feasible=False)]
    lines = list(forecast.fix_lines(fixes))
    assert max(map(len, lines)) <= 100
    assert any("more memory than this machine has" in line for line in lines)
    found = heat_map(stalled_forecast.predictor, (2, 12, 16), (1, 2, 4, 8), 30)
    lines = list(forecast.heat_map_lines(found))
    assert max(map(len, lines)) <= 100
    assert lines[3].startswith("12\u00a0¹") and lines[4].startswith("16\u00a0¹")
    assert "¹ 12, 16 workers from a run with 2: far from what was measured" in lines
    assert any(line.startswith("Intervals reach from −") for line in lines)


def test_a_footnote_is_told_once() -> None:
    known, assumed = Extrapolation("known"), Extrapolation("assumed")
    eight, sixteen = (Extrapolation("cores: more than here", cores) for cores in (8, 16))
    notes = Footnotes(known=(known,))
    assert notes.mark("a", [known, eight, assumed]) == "a\u00a0¹\u00a0²"
    assert notes.mark("b", [sixteen, eight]) == "b\u00a0¹"
    assert notes.mark("c", [known]) == "c"
    assert list(notes.lines()) == ["¹ 8, 16 cores: more than here", "² assumed"]


def test_extrapolations_that_differ_by_their_amount_are_one() -> None:
    found = [Extrapolation("x"), Extrapolation("y", 2.5), Extrapolation("x"), Extrapolation("y", 3)]
    assert merged(found) == ["x", "2.5, 3 y"]
    assert str(found[1]) == "2.5 y"


def test_a_text_that_begins_with_a_number_is_no_amount() -> None:
    texts = ["3 ranks wait", "4 ranks wait"]
    assert merged(Extrapolation(text) for text in texts) == texts


def one_of(answer: Forecast, word: str) -> Ranked:
    return next(one for one in answer.fixes if one.fix.word == word)


def test_more_cores_are_a_card_only_where_the_verdict_names_them(stalled_forecast: Forecast) -> None:
    cores = replace(one_of(stalled_forecast, "more-cores"), gain=9.0)
    fixes, analysis = (cores, *stalled_forecast.fixes), stalled_forecast.analysis
    assert analysis.facts is not None
    finding = analysis.verdict.finding

    def words(choice: Choice) -> list[str]:
        return [one.fix.word for one in advised(fixes, choice, finding, analysis.facts)]

    assert "more-cores" not in words(stalled_forecast.choice)
    assert words(Choice("more-cores", cores))[0] == "more-cores"


def test_a_card_says_how_far_it_reaches(stalled_forecast: Forecast) -> None:
    far = one_of(stalled_forecast, "more-workers")
    far = replace(far, gain=9.0, prediction=replace(far.prediction, extrapolations=(FAR,)))
    said = view_of(stalled_forecast.analysis.run, stalled_forecast.verdict)
    assert f"Extrapolated: {FAR}." in advice.card(far, (), said)["note"]
    assert str(FAR) in what_if.fixes_table((far,), shared=()).rows[0].how
    known = advice.card(far, (FAR,), said)["note"]
    assert "Extrapolated" not in known, "it holds for all of the page"
