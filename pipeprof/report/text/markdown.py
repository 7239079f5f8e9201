"""The report as Markdown, for an issue or a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from pipeprof import units
from pipeprof.analyse.sentence import at_line, of_owner
from pipeprof.report.text.terminal import clean
from pipeprof.report.wording import advice
from pipeprof.report.wording.view import RunView, cost_line, stall_line, view_of
from pipeprof.simulate.forecast import Forecast

MOST_OWNERS = 8


def markdown(forecast: Forecast, price_per_hour: float | None = None) -> str:
    """Return the verdict, its lines, the predicted fixes and where each step's time went."""
    said = view_of(forecast.analysis.run, forecast.publish())
    parts = (
        _verdict(said, cost_line(said, price_per_hour)),
        _fixes(forecast, said),
        _owners(said),
        _rest(said),
    )
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


def _verdict(said: RunView, cost: str) -> Iterator[str]:
    yield f"### pipeprof: {escaped(said.headline)}"
    yield ""
    yield f"- {escaped(stall_line(said))}"
    if said.steps:
        yield (
            f"- {escaped(said.utilization_name)} {units.percent(said.utilization)}, "
            f"{units.sample_rate(said.throughput)}, {units.plural(said.steps, 'step')}"
        )
    if cost:
        yield f"- {escaped(cost)}"
    if said.reason:
        yield f"- why: {escaped(said.reason)}"
    for line in said.hot[:3]:
        text = f"{units.percent(line.share)} {of_owner(line)}, {at_line(line)}"
        yield f"- {escaped(text)}"
    if said.next_step:
        yield f"- next: {escaped(said.next_step)}"


def _fixes(forecast: Forecast, said: RunView) -> Iterator[str]:
    if not forecast.advice:
        return
    yield "| predicted | change | stall then |"
    yield "| ---: | --- | ---: |"
    for ranked in forecast.advice:
        stall = units.percent(ranked.prediction.stall.value)
        how = f"{escaped(ranked.fix.title)}: {escaped(advice.written(forecast, ranked, said))}"
        rate = advice.from_to(ranked)
        yield f"| {escaped(advice.gain(ranked))}, {escaped(rate)} | {how} | {stall} |"


def _owners(said: RunView) -> Iterator[str]:
    if not said.owned:
        return
    yield "| where each step's time went | each step | of time |"
    yield "| --- | ---: | ---: |"
    for row in sorted(said.owned, key=lambda row: -row.ledger_ns)[:MOST_OWNERS]:
        yield f"| {escaped(row.label)} | {units.duration(row.step_ns)} | {units.percent(row.ledger_share)} |"


def _rest(said: RunView) -> Iterator[str]:
    for problem, remedy in said.doubts:
        yield f"- doubt: {escaped(problem)}; {escaped(remedy)}"
    if said.emulated:
        yield f"- emulated: {escaped(', '.join(said.emulated))}"
    status = "" if said.status == "complete" else f", {said.status}"
    yield f"- `{code(said.name)}`, {escaped(said.created)}{status}"


def escaped(text: str) -> str:
    """Return text with the characters escaped that Markdown would interpret."""
    special = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]#|!"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
    return clean(text).translate(special)


def code(text: str) -> str:
    """Return text that can stand between backticks, also in a table."""
    return clean(text).replace("`", "'").replace("|", "/")
