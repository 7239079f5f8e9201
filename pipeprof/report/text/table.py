"""Tables in a terminal: rich lays them out, so that columns align even if characters are two columns wide."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Final

from pipeprof.units import printable

if TYPE_CHECKING:
    from rich.text import Text

_NO_BREAK_SPACE: Final = "\u00a0"
_HELD: Final = "\ue000"
"""Stands for a no-break space meanwhile: rich breaks lines at that one too."""


class TextTable:
    """A table of at most `width` columns; what does not fit in them is cut, in columns `wrapped` it wraps."""

    def __init__(
        self,
        heads: Sequence[str],
        width: int,
        *,
        right: Collection[int] = (),
        wrapped: Collection[int] = (),
        widest: int | None = None,
        rule: bool = False,
    ) -> None:
        """Begin with the heads of the columns, all empty for none; `rule` draws a line under them.

        Columns `right` are flush right. No column is wider than `widest`.
        """
        from rich import box
        from rich.table import Table

        self._width = width
        self._table = Table(
            box=box.SIMPLE_HEAD if rule else None,
            show_header=any(heads),
            show_edge=False,
            pad_edge=False,
            padding=(0, 1 if rule else 2, 0, 0),
            header_style="bold",
        )
        for number, head in enumerate(heads):
            is_wrapped = number in wrapped
            self._table.add_column(
                _cell(head),
                justify="right" if number in right else "left",
                no_wrap=not is_wrapped,
                overflow="fold" if is_wrapped else "ellipsis",
                max_width=widest,
            )

    def row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row; a `Text` keeps its own style."""
        self._table.add_row(*map(_cell, cells), style=style)

    def lines(self) -> list[Text]:
        """Return the lines, without spaces at their ends."""
        from rich.console import Console
        from rich.text import Text

        console = Console(file=StringIO(), width=self._width, color_system="standard", legacy_windows=False)
        rendered = console.render_lines(self._table, pad=False)
        lines = [
            Text.assemble(
                *((part.text.replace(_HELD, _NO_BREAK_SPACE), part.style or "") for part in line),
                no_wrap=True,
            )
            for line in rendered
        ]
        for line in lines:
            line.rstrip()
        return lines

    def plain(self) -> list[str]:
        """Return the lines as text without styles."""
        return [line.plain for line in self.lines()]


def _cell(content: str | Text) -> Text:
    from rich.text import Text

    if isinstance(content, Text):
        return content
    return Text(printable(content).replace("\n", "\ufffd").replace(_NO_BREAK_SPACE, _HELD))
