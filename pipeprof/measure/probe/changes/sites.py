"""Places in source where loaders are made: the call's file and position, and a name for what it makes.

The name is what the source calls the loader: the variable or attribute that it is assigned to, its key in a
dictionary, the argument as which it is handed over, or the function that returns it.
"""

from __future__ import annotations

import ast
import itertools
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from pipeprof.record.calls import call_at

_OURS: Final = str(Path(__file__).parents[3])
_LIBRARIES: Final = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_PASSED_OVER: Final = ("torch.", "torchdata.", "functools.", "contextlib.")
Parents = dict[ast.AST, ast.AST]


class Site(NamedTuple):
    """Call that made a loader."""

    file: str
    line: int
    column: int | None
    """UTF-8 bytes before the call in its line, as `ast` counts them; None if not known."""
    name: str
    """Name in the source; empty if it has none."""
    in_library: bool
    """True if a library made the loader, and not the user's code."""


def site_of(loader: Any) -> Site | None:
    """Return the place at which `loader`, whose constructor is running, is made; None if not known."""
    frame = next(_callers(sys._getframe(1)), None)
    if frame is None:
        return None
    file, (line, column) = frame.f_code.co_filename, _position(frame)
    in_library = file.startswith(_LIBRARIES) or "site-packages" in file
    named = frame
    while named.f_code.co_name == "__init__" and named.f_back is not None and _constructs(named, loader):
        named = named.f_back  # a subclass of the user's: its own caller has the name
    name = "" if in_library else name_at(named.f_code.co_filename, *_position(named))
    return Site(file, line, column, name, in_library)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames from `frame` outwards, without torch's, ours, and those that wrap a constructor."""
    while frame is not None:
        module = f"{frame.f_globals.get('__name__', '')}."
        wraps = module.startswith("lightning") and frame.f_code.co_name == "wrapper"
        ours = frame.f_code.co_filename.startswith(_OURS)
        if not (ours or wraps or module.startswith(_PASSED_OVER)):
            yield frame
        frame = frame.f_back


def _position(frame: FrameType) -> tuple[int, int | None]:
    """Return line and column of the call that a frame is in."""
    positions = frame.f_code.co_positions()
    line, _, column, _ = next(itertools.islice(positions, frame.f_lasti // 2, None), (None,) * 4)
    return (frame.f_lineno, None) if line is None else (line, column)


def _constructs(frame: FrameType, loader: Any) -> bool:
    code = frame.f_code
    return bool(code.co_argcount) and frame.f_locals.get(code.co_varnames[0]) is loader


@lru_cache(maxsize=64)
def _parsed(file: str) -> tuple[ast.Module, Parents] | None:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None
    return tree, {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def name_at(file: str, line: int, column: int | None) -> str:
    """Return what the source calls the object that the call there makes; empty if nothing."""
    parsed = _parsed(file)
    call = None if parsed is None else call_at(parsed[0], line, column)
    if parsed is None or call is None:
        return ""
    return _name(call, parsed[1])


def _name(node: ast.AST, parents: Parents) -> str:
    """Go outwards from a call to whatever names it."""
    places: list[tuple[int, int]] = []
    """Places in tuples and in calls' arguments on the way, with how many there are."""
    while (parent := parents.get(node)) is not None:
        if isinstance(parent, ast.keyword):
            return parent.arg or ""
        if isinstance(parent, ast.Dict):
            return next(
                (_key(k) for k, v in zip(parent.keys, parent.values, strict=True) if v is node and k), ""
            )
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            target = parent.targets[0] if isinstance(parent, ast.Assign) else parent.target
            return _target(target, places)
        if isinstance(parent, ast.Return):
            return _function(parent, parents)
        if isinstance(parent, ast.stmt):
            return ""
        elements: list[ast.AST] = list(
            parent.args if isinstance(parent, ast.Call) else getattr(parent, "elts", [])
        )
        if node in elements:
            places.append((elements.index(node), len(elements)))
        node = parent
    return ""


def _target(target: ast.expr, places: list[tuple[int, int]]) -> str:
    if isinstance(target, (ast.Tuple, ast.List)):
        fitting = [at for at, many in places if many == len(target.elts)]
        return _target(target.elts[fitting[-1]], []) if fitting else ""
    if isinstance(target, ast.Subscript):
        return _key(target.slice)
    return target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")


def _function(node: ast.AST, parents: Parents) -> str:
    while (parent := parents.get(node)) is not None:
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return parent.name
        node = parent
    return ""


def _key(node: ast.expr) -> str:
    text = node.value if isinstance(node, ast.Constant) else None
    return text if isinstance(text, str) and text.isidentifier() else ""
