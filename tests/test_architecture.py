"""Reads the imports of every module and keeps the table of rooms (DESIGN §3)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeprof"

ROOMS: dict[str, tuple[set[str], set[str]]] = {
    # room: (rooms it may import, third-party packages it may import)
    "errors": (set(), set()),
    "devices": ({"errors"}, set()),
    "scenario": ({"errors", "devices"}, {"yaml", "pydantic", "pydantic_core"}),
    "columns": (set(), {"pyarrow", "numpy"}),
    "trace": ({"errors", "columns"}, {"pyarrow"}),
    "pipeline": ({"errors", "trace"}, {"numpy"}),
    "measure": (
        {"errors", "devices", "scenario", "columns", "trace"},
        {"torch", "torchvision", "psutil", "pynvml", "numpy", "fsspec", "PIL", "rich"},
    ),
    "analyse": ({"errors", "trace", "pipeline"}, {"pyarrow", "numpy"}),
    "simulate": ({"errors", "devices", "trace", "pipeline", "analyse"}, {"numpy"}),
    "report": (
        {"errors", "trace", "pipeline", "analyse", "simulate"},
        {
            "pyarrow",
            "numpy",
            "jinja2",
            "markupsafe",
            "rich",
            "altair",
            "vl_convert",
            "perfetto",
            "tensorboard",
        },
    ),
    # each module imports one optional library, and is imported by its users alone
    "integrations": ({"errors", "measure"}, {"torch", "lightning", "transformers", "opentelemetry"}),
    "cli": (
        {"errors", "devices", "scenario", "trace", "pipeline", "measure", "analyse", "simulate", "report"},
        {"click", "rich"},
    ),
}
EXCEPTIONS: dict[str, set[str]] = {
    "simulate.tune": {"measure", "scenario"},  # it alone confirms by measuring
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            found |= {f"pipeprof.{alias.name}" for alias in node.names} if module == "pipeprof" else {module}
    return found


def top_level_imports(path: Path) -> set[str]:
    """Modules of pipeprof that importing this module imports too."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeprof"):
            module = node.module or ""
            for alias in node.names:
                below = f"{module}.{alias.name}"
                found.add(
                    below
                    if PACKAGE.parent.joinpath(*below.split(".")).with_suffix(".py").exists()
                    else module
                )
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_what_its_room_may(path: Path) -> None:
    name = name_of(path)
    room = name.split(".")[0]
    if room in ("__init__", "__main__"):
        return
    rooms, packages = ROOMS[room]
    rooms = rooms | EXCEPTIONS.get(name, set()) | {room}
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "pipeprof":
            # the front door (`from pipeprof import load`) is open to all: it imports lazily
            inside = rest.split(".")[0]
            assert inside in rooms or inside not in ROOMS, f"{name} imports {module}"
        else:
            assert top in packages or top in sys.stdlib_module_names, f"{name} imports {module}"


def test_there_is_no_import_cycle() -> None:
    graph = {f"pipeprof.{name_of(p)}".removesuffix(".__init__"): top_level_imports(p) for p in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for below in graph.get(module, ()):
                visit(below, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "split it by meaning"
