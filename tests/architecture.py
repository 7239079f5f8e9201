"""Read the imports of a package and list what breaks its layout: used on pipeprof and on made trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Room:
    """One room: the rooms and third-party packages that its modules may import."""

    rooms: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()


@dataclass
class Package:
    """The modules of a package, by dotted name below it, and what each imports anywhere in its source."""

    root: Path
    homes: Mapping[str, str] = field(default_factory=dict)
    """Public names of the front door, and the module that each comes from."""

    def __post_init__(self) -> None:
        self.modules = {self._name(path): path for path in sorted(self.root.rglob("*.py"))}
        self.imports = {name: sorted(set(self._imports(path))) for name, path in self.modules.items()}

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _imports(self, path: Path) -> Iterator[str]:
        """Yield full names of imported modules, those in functions and under TYPE_CHECKING too."""
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                yield from (self._resolve(node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Call) and _is_import_module(node):
                argument = node.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value

    def _resolve(self, module: str, name: str) -> str:
        """Return the module that `from module import name` reads."""
        top = self.root.name
        inside = f"{module}.{name}".removeprefix(f"{top}.")
        if f"{module}.{name}".startswith(f"{top}.") and inside in self.modules:
            return f"{module}.{name}"
        return self.homes.get(name, module) if module == top else module

    def inner(self, module: str) -> Iterator[str]:
        """Yield the modules of the package that `module` imports."""
        top = self.root.name
        for full in self.imports[module]:
            if full == top or full.startswith(f"{top}."):
                name = full.removeprefix(top).removeprefix(".")
                if name != module:
                    yield name


def _is_import_module(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "import_module" and bool(node.args)


def room_of(module: str, rooms: Mapping[str, Room]) -> str | None:
    """Return the innermost room that `module` lies in; None for the front door."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in rooms), None)


def forbidden_imports(package: Package, rooms: Mapping[str, Room], own: Mapping[str, Room]) -> list[str]:
    """List imports that the table of rooms does not allow. `own` adds to single modules."""
    wrong = []
    for module in package.modules:
        if not module or module == "__main__":
            continue
        room = room_of(module, rooms)
        if room is None:
            wrong.append(f"{module} is in no room")
            continue
        allowed, extra = rooms[room], own.get(module, Room())
        may = allowed.rooms | extra.rooms | {room}
        for target in package.inner(module):
            there = room_of(target, rooms)
            if target and there is not None and not any(_within(there, name) for name in may):
                wrong.append(f"{module} imports {target}")
        for full in package.imports[module]:
            top = full.partition(".")[0]
            known = allowed.packages | extra.packages | set(sys.stdlib_module_names) | {package.root.name}
            if top not in known:
                wrong.append(f"{module} imports {full}")
    return wrong


BACKENDS = frozenset({"cuda", "xpu", "mps", "hpu", "npu", "backends", "version"})
"""Names in torch that belong to one kind of device, or tell of one."""


def backends_named(tree: ast.Module) -> Iterator[str]:
    """Yield what a module names of torch's backends: as an attribute, by import or in a string."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    torch = {alias.asname or "torch" for node in imports for alias in node.names if alias.name == "torch"}
    for node in ast.walk(tree):
        for full in _named_by(node, torch):
            parts = full.split(".")
            if parts[0] == "torch" and len(parts) > 1 and parts[1] in BACKENDS:
                yield parts[1]


def _named_by(node: ast.AST, torch: set[str]) -> list[str]:
    """Return dotted names that a node reads; `torch` is what torch is called in its module."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in torch:
        return [f"torch.{node.attr}"]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args:
        first, *rest = node.args
        if isinstance(first, ast.Name) and first.id in torch:
            return [f"torch.{each.value}" for each in rest if isinstance(each, ast.Constant)]
        if _is_import_module(node):
            return [str(getattr(first, "value", ""))]
    return []


def _within(room: str, allowed: str) -> bool:
    return room == allowed or room.startswith(f"{allowed}.")


def import_circles(package: Package) -> list[str]:
    """List circles among modules, counting every import in the source; one a strongly connected group."""
    graph = {name: [t for t in package.inner(name) if t in package.modules and t] for name in package.modules}
    graph.pop("", None)  # the front door imports by name, when asked
    return _circles(graph)


def room_circles(rooms: Mapping[str, Room]) -> list[str]:
    """List circles of rooms that may import each other. A room and its own wings count as one house."""
    return _circles(
        {
            room: [
                each
                for each in rooms
                if any(_within(each, name) for name in table.rooms)
                and not _within(each, room)
                and not _within(room, each)
            ]
            for room, table in rooms.items()
        }
    )


def _circles(graph: Mapping[str, list[str]]) -> list[str]:
    circles, done, path = [], set[str](), list[str]()

    def visit(module: str) -> None:
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
            return
        if module in done:
            return
        path.append(module)
        for target in graph.get(module, ()):
            visit(target)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)
    return circles


def shared_names(package: Package) -> dict[str, list[str]]:
    """Return the public classes of which several modules have one of that name, with those modules."""
    homes: dict[str, list[str]] = {}
    for module, path in package.modules.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    return {name: modules for name, modules in homes.items() if len(modules) > 1}


def crowded_folders(package: Package, most: int) -> list[str]:
    """List folders that hold more than `most` modules, `__init__` not counted."""
    counts: dict[Path, int] = {}
    for path in package.modules.values():
        if path.name != "__init__.py":
            counts[path.parent] = counts.get(path.parent, 0) + 1
    return [
        f"{folder.relative_to(package.root.parent)} holds {n} modules"
        for folder, n in counts.items()
        if n > most
    ]
