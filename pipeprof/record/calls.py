"""Find the call in a source that a record names by its place."""

from __future__ import annotations

import ast


def call_at(tree: ast.AST, line: int, column: int | None) -> ast.Call | None:
    """Return the call that begins there; None if none does, or several and the column is not known.

    `column` counts UTF-8 bytes, as `ast` does. Of calls that begin at the same place, as in `a(1).b(2)`, it
    is the longest.
    """
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and each.lineno == line]
    if column is None:
        return calls[0] if len(calls) == 1 else None
    calls = [each for each in calls if each.col_offset == column]
    return max(calls, key=lambda call: (call.end_lineno or 0, call.end_col_offset or 0), default=None)
