"""The source text of a run's hot lines, read if the files still hold what ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

from pipeprof.analyse.why.lines import HotLine
from pipeprof.record.meta import RunMeta
from pipeprof.redact import redact_source
from pipeprof.report.wording.view import RunView
from pipeprof.simulate.tuning.edit import edit_of

Source = Callable[[HotLine], str]
"""Returns the text of a line; empty if it is not to be shown or cannot be read."""

MOST_CHARACTERS: Final = 160
MOST_SOURCE_BYTES: Final = 4 << 20
"""Size of a source file at most: a run names it, and may be someone else's."""


def no_source(line: HotLine) -> str:
    """Show no source text."""
    del line
    return ""


def source_of(meta: RunMeta) -> Source:
    """Read lines of Python files that have not changed since the run began."""
    began = _timestamp(meta.created_at)

    def text(line: HotLine) -> str:
        path = Path(line.path)
        if began is None or path.suffix != ".py":
            return ""
        try:
            state = path.stat()
            if state.st_mtime > began or not S_ISREG(state.st_mode) or state.st_size > MOST_SOURCE_BYTES:
                return ""
            with path.open(encoding="utf-8", errors="replace") as file:
                text_of_line = next(islice(file, line.line - 1, line.line), "").strip()
        except (OSError, ValueError):
            return ""
        shown = redact_source(text_of_line)
        return shown if len(shown) <= MOST_CHARACTERS else f"{shown[:MOST_CHARACTERS]}…"

    return text


def diff_of(said: RunView, arguments: Mapping[str, Any], source: Source) -> str:
    """Return the changed lines of the call that made the loader; empty if `source` shows none."""
    made = said.loader
    if not arguments or made.file is None or made.line is None or said.meta.kind == "bench":
        return ""
    if not source(HotLine("", made.file, made.line, "", 0.0, path=made.file)):
        return ""
    lines = edit_of(made, arguments).diff.splitlines()[_HEADER_LINES:]
    changed = [line for line in lines if line.startswith(("-", "+"))]
    return "\n".join(redact_source(line) for line in changed) if len(changed) <= MOST_CHANGED else ""


_HEADER_LINES: Final = 2
MOST_CHANGED: Final = 8
"""Lines of a diff on a card: of a longer one what to write is enough."""


def _timestamp(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
