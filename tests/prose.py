"""List what breaks the rules of CONTRIBUTING.md on plain English, as far as a machine can tell."""

from __future__ import annotations

import ast
import re
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
DENIAL: Final = re.compile(r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b)(\w|$)")
"""An “X is no Y”, which English says as “X is not a Y”; “there is no Y” is English."""
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


def denials(tree: ast.AST) -> Iterator[str]:
    """Yield texts other than docstrings that say “X is no Y”."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in bare else None
        if isinstance(text, str) and (match := DENIAL.search(text)):
            yield f"line {getattr(node, 'lineno', 0)}: {match[0]}"
