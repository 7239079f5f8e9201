"""List what breaks the rules of CONTRIBUTING.md on plain English, as far as a machine can tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

Function = ast.FunctionDef | ast.AsyncFunctionDef

_NO_VERB = (
    "A All An And As At Both By Each Every For From How If In It Its No None Nothing Of On One Only That The "
    "These They This Those To True Two What When Where Whether Which Who Why With Without Yes"
)
NO_VERB: Final = frozenset(_NO_VERB.split())
"""Words that a docstring of a function does not begin with: it begins with a verb."""
NO_CLASS: Final = NO_VERB & {
    "How",
    "It",
    "Nothing",
    "Of",
    "They",
    "What",
    "Where",
    "Whether",
    "Which",
    "Who",
    "Why",
}
"""Words that a docstring of a class or module does not begin with: it says what it is."""
NAMES_NOTHING: Final = frozenset({"beside", "found", "one", "told"})


def vague_docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield docstrings of functions that begin with no verb, and of classes that do not say what they are."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            refused = NO_VERB if isinstance(node, Function) else NO_CLASS
            if text and text.split()[0].rstrip(".,:;") in refused:
                yield f"{getattr(node, 'name', 'module')}: {text.splitlines()[0]}"


def empty_names(tree: ast.AST) -> Iterator[str]:
    """Yield functions, classes, parameters and attributes whose name says nothing."""
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, Function | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.arg) and node.annotation is not None:  # a lambda's say it by its body
            name = node.arg
        elif isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id if node.value is None else ""
        if name.strip("_") in NAMES_NOTHING:
            yield f"line {getattr(node, 'lineno', 0)}: {name}"
