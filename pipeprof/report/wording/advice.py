"""Fixes of a run and their predicted gains in words, with the command that tries each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse import choice
from pipeprof.analyse.harm import warning
from pipeprof.analyse.verdict import NEEDS_MORE_STEPS
from pipeprof.report.wording import command, reading
from pipeprof.report.wording.view import RunView
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.predict import Estimate
from pipeprof.simulate.ranking import Calibration, Ranked
from pipeprof.simulate.tuning.tried import scenario_keys
from pipeprof.vocabulary import fixes, owners

TRUSTED: Final = 0.10
"""A replay further than this from what was measured makes gains hints."""


def estimate(value: Estimate) -> str:
    """Return an estimate with its interval, such as `420 (405–436)`."""
    return f"{units.digits(value.value)} ({units.digits(value.low)}–{units.digits(value.high)})"


def gain(ranked: Ranked) -> str:
    """Return the speed with the fix over the speed without: `2.9×`, or `+12%` below one and a half."""
    return f"{units.digits(1 + ranked.gain)}×" if ranked.gain >= 0.5 else f"+{units.percent(ranked.gain)}"


def headroom_text(best: Estimate, calibration: Calibration) -> str:
    """Return the `best` rate, that with loading which costs nothing, beside the present one."""
    now = calibration.rate(calibration.base).value
    best = Estimate(*(max(now, each) for each in (best.value, best.low, best.high)))
    return f"if loading were free: about {estimate(best)} samples/s, now {units.digits(now)}"


def from_to(ranked: Ranked) -> str:
    """Return the rate now and with the fix, with its interval: `16.8 → 21.2 (19.0–23.1) samples/s`."""
    return f"{_now(ranked.measured)}{estimate(ranked.rate)} samples/s"


def _now(measured: float | None) -> str:
    return f"{units.digits(measured)} → " if measured else ""


def no_diff(arguments: Mapping[str, Any]) -> str:
    """Show no source."""
    del arguments
    return ""


def in_code(forecast: Forecast, ranked: Ranked, facts: RunView) -> str:
    """Return the line of the program that a fix is made at; empty if not known, or in a scenario."""
    place = "" if facts.meta.kind == "bench" else forecast.place_of(ranked.fix)
    by_library = ranked.fix.is_at_loader and facts.loader.in_library
    return f"{place} (a library's code)" if place and by_library else place


def written(forecast: Forecast, ranked: Ranked, facts: RunView) -> str:
    """Return what to write or to type, after the place in the user's program if it is known."""
    place = in_code(forecast, ranked, facts)
    return f"{place}: {how_of(ranked, facts)}" if place else how_of(ranked, facts)


def cards(
    forecast: Forecast, facts: RunView, diff: Callable[[Mapping[str, Any]], str] = no_diff
) -> list[dict[str, str]]:
    """Draw the first screen's fixes, the verdict's first.

    `diff` shows the source with the arguments that a DataLoader is to have; empty if it cannot.
    """
    drawn = [
        {
            **card(candidate, shared_extrapolations(forecast), facts, warning_of(forecast, candidate) or ""),
            "place": in_code(forecast, candidate, facts),
            "diff": diff(forecast.arguments_of(candidate.fix)),
            "command": trying(forecast, facts, candidate),
            "untried": untried(forecast, facts, candidate),
            **_careful(warning_of(forecast, candidate)),
        }
        for candidate in forecast.advice
    ]
    if forecast.choice.ranked is None and facts.fix != fixes.NONE.word:
        drawn.insert(0, {**_unpredicted(facts), **_careful(facts.warning)})
    return drawn


def warning_of(forecast: Forecast, ranked: Ranked) -> str | None:
    """Return the harm that a fix does to this run's training or machine; None if none applies."""
    return warning(ranked.fix.word, forecast.analysis.facts)


def _careful(text: str | None) -> dict[str, str]:
    return {"warning": text} if text else {}


def _unpredicted(facts: RunView) -> dict[str, str]:
    note = "Chosen from where the time went; no gain is predicted for it from this run."
    title = fixes.BY_WORD[facts.fix].label
    drawn = {"gain": "?", "of": "gain not predicted", "title": title, "note": note, "code": "", "diff": ""}
    return {**drawn, "place": unpredicted_place(facts), "command": trying_unpredicted(facts), "untried": ""}


def unpredicted_place(facts: RunView) -> str:
    """Return the line of the user's program at which the verdict's fix is made; empty if not known.

    It is the call of DataLoader if the fix is an argument of it, else the line that costs most.
    """
    if facts.meta.kind == "bench":
        return ""
    if fixes.BY_WORD[facts.fix].argument:
        return "" if facts.loader.in_library else facts.loader_place
    lines = facts.hot if fixes.BY_WORD[facts.fix].at_line else ()
    return next((line.place for line in lines if not line.is_library), "")


def trying(forecast: Forecast, facts: RunView, ranked: Ranked) -> str:
    """Return the command that tries a predicted fix on this run; empty if none does."""
    if ranked.fix.wraps and facts.meta.kind == "trace" and _passes(forecast) < 2:
        return ""
    return command.of_fix(
        command.CACHED if ranked.fix.wraps else ranked.fix.word,
        forecast.arguments_of(ranked.fix),
        scenario_keys(ranked.fix),
        facts.meta,
        facts.loader,
        bool(facts.other_loaders),
    )


def _passes(forecast: Forecast) -> int:
    facts = forecast.analysis.facts
    return facts.epochs if facts is not None else 0


def untried(forecast: Forecast, facts: RunView, ranked: Ranked) -> str:
    """Return why no command can try a fix; empty if one can, or if the fix is an edit of the code."""
    if trying(forecast, facts, ranked):
        return ""
    if ranked.fix.wraps and facts.meta.kind == "trace" and _passes(forecast) < 2:
        return "No command tries it: it helps from the second pass over the data on, and this run had one."
    if ranked.fix.word == fixes.FREE_CORES.word and (named := _programs(forecast)):
        return f"{fixes.FREE_CORES.no_trial[:-1]} (most: {named})."
    return fixes.BY_WORD[ranked.fix.word].no_trial


def _programs(forecast: Forecast) -> str:
    facts = forecast.analysis.facts
    return "" if facts is None else ", ".join(facts.programs)


def trying_unpredicted(facts: RunView) -> str:
    """Return the command that tries the verdict's fix if no gain is predicted for it; empty if none can."""
    return command.of_fix(facts.fix, {}, (), facts.meta, facts.loader, bool(facts.other_loaders))


def measuring_more(facts: RunView) -> str:
    """Return the command that measures an inconclusive run for long enough; empty if none does."""
    if not facts.inconclusive or facts.detail not in NEEDS_MORE_STEPS:
        return ""
    return command.of_longer(facts.meta, facts.steps, facts.wall_ns or 0)


def how_of(ranked: Ranked, facts: RunView) -> str:
    """Return what to type: the keys of a scenario if one was run, else what to write in the program."""
    is_scenario = facts.meta.kind == "bench"
    return ranked.fix.keys if is_scenario and ranked.fix.keys else ranked.fix.how


def card(ranked: Ranked, shared: Collection[Extrapolation], facts: RunView, said: str = "") -> dict[str, str]:
    """Draw one fix with its predicted gain, what to type, and what it rests on beyond what all `shared`.

    Anything already `said` with it, as a warning, is not repeated.
    """
    emulated = bool(facts.emulated)
    prediction = ranked.prediction
    parts = " with emulated parts" if emulated else ""
    notes = [
        f"{from_to(ranked)}{parts}, "
        f"waiting {units.percent(prediction.stall.value)}; "
        f"then limited by {owners.limit_of(prediction.limit)}.",
        f"Needs {costs(ranked)}." if costs(ranked) else "",
        *(f"{text[:1].upper()}{text[1:]}." for text in rests_on(ranked, shared) if not _is_said(text, said)),
    ]
    return {
        "gain": gain(ranked),
        "of": f"{'the ' if ranked.gain >= 0.5 else ''}speed, predicted",
        "title": ranked.fix.title[:1].upper() + ranked.fix.title[1:],
        "note": " ".join(note for note in notes if note),
        "code": how_of(ranked, facts),
    }


def _is_said(assumption: str, warning: str) -> bool:
    """Return whether a warning says what an assumption does."""
    return assumption.removeprefix("assumes: ").casefold() == warning.rstrip(".").casefold()


def shared_extrapolations(forecast: Forecast) -> tuple[Extrapolation, ...]:
    """Return how all predictions from this run go beyond it."""
    return forecast.base.extrapolations if forecast.base is not None else ()


def hint(forecast: Forecast) -> str:
    """Explain how to read the fixes, and a warning if the simulator does not know this run."""
    rough = replay_warning(forecast)
    return f"{reading.FIXES} {rough}." if rough else reading.FIXES


def why_first(forecast: Forecast) -> str:
    """Say why the first fix stands above one that is predicted to gain more; empty if none does."""
    first, advised = forecast.choice.ranked, forecast.advice
    if first is None or choice.equal(first.gain, max(one.gain for one in advised)):
        return ""
    return "The first mends what the loop waits for, though another is predicted to gain more."


def replay_warning(forecast: Forecast) -> str:
    """Say that predictions are rough estimates, if the replay is far from the run; else empty."""
    gap, measured, replay = forecast.replay_error, forecast.analysis.verdict.stall_share, forecast.replay
    if gap is None or replay is None:
        return ""
    if abs(gap) > TRUSTED:
        off = f"{units.percent(abs(gap))} {'faster' if gap > 0 else 'slower'} than measured"
        return f"Rough estimates: replayed unchanged, this run is {off}"
    if measured is not None and abs(replay.stall.value - measured) > TRUSTED:
        stalls = f"{units.percent(replay.stall.value)} of the time and not {units.percent(measured)}"
        return f"Rough estimates: replayed unchanged, this run waits {stalls}"
    return ""


def _assumed(ranked: Ranked) -> tuple[str, ...]:
    return (f"assumes: {ranked.fix.assumption}",) if ranked.fix.assumption else ()


def basis(ranked: Ranked) -> tuple[Extrapolation, ...]:
    """Return the assumptions of a fix, and how far its prediction is from the measurement."""
    return (*map(Extrapolation, _assumed(ranked)), *ranked.prediction.extrapolations)


def rests_on(ranked: Ranked, known: Collection[Extrapolation]) -> list[str]:
    """Return the assumptions of a fix, and how far it is extrapolated beyond what is `known` before."""
    beyond = (text for text in ranked.prediction.extrapolations if text not in known)
    return [*_assumed(ranked), *(f"extrapolated: {text}" for text in beyond)]


def costs(ranked: Ranked) -> str:
    """Return the needs of a fix: `1.2 GB of memory, 4 cores`; empty if it needs nothing."""
    size = ranked.fix.ram_bytes
    memory = f"{units.size(size)} of memory" if size else "memory (how much was not observed)"
    parts = [] if size == 0 else [memory]
    parts += [units.cores(ranked.fix.cores)] if ranked.fix.cores else []
    return ", ".join(parts)
