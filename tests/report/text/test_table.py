"""Tables in a terminal: aligned by columns of the screen, cut or wrapped, and never driven by a name."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from pipeprof.report.text.table import TextTable


def test_columns_align_where_characters_are_two_wide() -> None:
    table = TextTable(("transform", "share"), 40, right=(1,))
    for name in ("Resize", "リサイズ", "正规化"):
        table.row(name, "42%")
    assert {cell_len(line) for line in table.plain()} == {16}


def test_what_does_not_fit_is_cut_or_wrapped() -> None:
    cut, wrapped = TextTable(("a", "b"), 20), TextTable(("a", "b"), 20, wrapped=(0,))
    for table in (cut, wrapped):
        table.row("one two three four five six", "ends")
    assert len(cut.plain()) == 2 and "…" in cut.plain()[1]
    assert len(wrapped.plain()) > 2 and "six" in " ".join(wrapped.plain())
    assert all(cell_len(line) <= 20 for table in (cut, wrapped) for line in table.plain())


def test_a_no_break_space_holds() -> None:
    table = TextTable(("fix",), 12, wrapped=(0,))
    table.row("some more cores\u00a0¹")
    assert any(line.endswith("cores\u00a0¹") for line in table.plain())


def test_names_are_text_and_nothing_else() -> None:
    table = TextTable(("",), 40)
    table.row("[bold]x[/bold] a\x1b[31m\nb\ue000")
    assert table.plain() == ["[bold]x[/bold] a\ufffd[31m\ufffdb\ufffd"]


def test_a_cell_keeps_its_style() -> None:
    table = TextTable(("", ""), 40)
    table.row("a", Text("███", style="red"), style="dim")
    (line,) = table.lines()
    assert any("red" in str(span.style) for span in line.spans) and line.plain == "a  ███"
