"""Lines of code in which each owner's time was spent."""

from __future__ import annotations

from pipeprof import units
from pipeprof.analyse.why.lines import HotLine, Lines
from pipeprof.report.page.section import Row, Section, Table
from pipeprof.report.page.source import Source
from pipeprof.report.wording import words


def which_lines(lines: Lines, source: Source) -> Section:
    """Draw the three lines that cost the most of each owner's time."""
    section = Section(
        "lines",
        "Which lines",
        "Lines that each part of the time was spent at, from sampled stacks, the costliest path first: of "
        "your code, or of a library where none of yours called it.",
        folded=True,
    )
    if not lines:
        section.missing = (
            "Lines were not sampled: pipeprof trace samples them, unless --no-lines is given, and "
            "profile(loader, lines=True) does."
        )
        return section
    for owner in lines.owners():
        drawn = words.drawn(owner)
        rows = [_row(line, source) for line in lines.hot(owner)]
        if rows:
            section.tables.append(Table(drawn.label, ["line", "share of its time"], rows))
    return section


def _row(line: HotLine, source: Source) -> Row:
    call = f", calls {line.call}" if line.call else ""
    return Row([line.place, units.percent(line.share)], how=f"in {line.function}{call}", code=source(line))
