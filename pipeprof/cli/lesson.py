"""`pipeprof lesson`: measure the claims of CS231n, lecture 8, in order, and build the page."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeprof.cli.common import set_option
from pipeprof.cli.reading import written
from pipeprof.errors import PipeprofError

if TYPE_CHECKING:
    from pipeprof.measure.lesson import Rung

PAGE: Final = "index.html"
LESSON_JSON: Final = "lesson.json"


@click.command()
@click.option("--quick", is_flag=True, help="Fewer steps and fewer cells: minutes instead of half an hour.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the runs and the page go; by default runs/lesson, or runs/lesson-quick.",
)
@click.option(
    "--claim", "claims", type=click.IntRange(1, 10), multiple=True, help="Only this one; repeatable."
)
@click.option("--page-only", is_flag=True, help="Build the page from what was measured, and measure nothing.")
@set_option
@click.pass_context
def command(
    ctx: click.Context,
    quick: bool,
    out: Path | None,
    claims: tuple[int, ...],
    page_only: bool,
    overrides: tuple[str, ...],
) -> None:
    """Reproduce what lecture 8 of CS231n claims about feeding an accelerator, and build one page.

    What was measured before is kept: after Ctrl-C the same command goes on where it stopped.
    """
    out = out or Path("runs") / ("lesson-quick" if quick else "lesson")
    record = _Record(out, quick)
    code = 0
    if not page_only:
        from pipeprof.cli.lesson_tuning import Tuning
        from pipeprof.measure.lesson import course

        rungs = course(quick, claims, overrides)
        if not claims or 10 in claims:
            rungs.append(Tuning(quick))
        record.start()
        code = _climb(rungs, record)
    click.echo(f"The page: {_build(out)}")
    ctx.exit(code)


class _Record:
    """`lesson.json`: which course this is, what did not go as expected, and what failed."""

    def __init__(self, out: Path, quick: bool) -> None:
        self.out, self.path = out, out / LESSON_JSON
        self.quick = quick
        self.told: dict[str, Any] = {}

    def start(self) -> None:
        """Take up the course in `out`, or begin one. `PipeprofError` where something else is there."""
        from pipeprof.measure.lesson import read_json

        held = read_json(self.path)
        if not held and self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise PipeprofError(f"{self.out} is there and is no lesson", "choose another place with --out")
        if held and held.get("quick") != self.quick:
            which = "quick" if held.get("quick") else "whole"
            raise PipeprofError(f"{self.out} holds the {which} course", "choose another place with --out")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.told = {"schema": 1, "quick": self.quick, "created_at": now, "missed": {}, "errors": {}, **held}
        self.save()

    def note(self, name: str, missed: list[str], error: str = "") -> None:
        """What became of a rung."""
        for key, value in (("missed", missed), ("errors", error)):
            self.told[key].pop(name, None)
            if value:
                self.told[key][name] = value
        self.save()

    def save(self) -> None:
        """Write it."""
        from pipeprof.measure.lesson import save_json

        save_json(self.path, self.told)


def _climb(rungs: list[Rung], record: _Record) -> int:
    """Measure what is not measured yet, one rung after the other; the exit code."""
    code = 0
    for number, rung in enumerate(rungs, 1):
        place = f"[{number}/{len(rungs)}] {rung.name}"
        if rung.done(record.out):
            click.echo(f"{place}: already measured", err=True)
            continue
        click.echo(place, err=True)
        try:
            _measure(rung, record)
        except PipeprofError as error:  # the others may still succeed
            click.echo(f"pipeprof: {error}", err=True)
            record.note(rung.name, [], str(error))
            code = code or error.exit_code
        except KeyboardInterrupt:
            click.echo("Interrupted: the same command goes on from here.", err=True)
            return 130
    return code


def _measure(rung: Rung, record: _Record) -> None:
    """One rung, and whether it came to what it expects. Raises `KeyboardInterrupt` where it was stopped."""
    from pipeprof.analyse.answer import load
    from pipeprof.cli.expectation import misses
    from pipeprof.measure.lesson import ScenarioRung
    from pipeprof.measure.live import shown

    rung.measure(record.out, shown)
    missed: list[str] = []
    if isinstance(rung, ScenarioRung):
        answer = load(record.out / rung.name)
        if answer.run.status == "interrupted":
            raise KeyboardInterrupt
        missed = misses(rung.scenario.expect, answer.as_dict()) if rung.scenario.expect else []
        click.echo(f"  {answer.sentence}", err=True)
    if missed:
        click.echo(f"  Not as expected: {'; '.join(missed)}.", err=True)
    record.note(rung.name, missed)


def _build(out: Path) -> Path:
    from pipeprof.report import lesson

    with written(out / PAGE):
        return lesson.write(out, out / PAGE)
