"""Keep the house (CONTRIBUTING.md): who may import whom, no circles, no crowded folder, plain English."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeprof
from tests.architecture import (
    Package,
    Room,
    backends_named,
    crowded_folders,
    forbidden_imports,
    import_circles,
    room_circles,
    shared_names,
)
from tests.prose import denials, empty_names, vague_docstrings

PACKAGE = Package(Path(pipeprof.__file__).parent, pipeprof._HOMES)
MOST_MODULES = 16


def room(rooms: str = "", packages: str = "") -> Room:
    return Room(frozenset(rooms.split()), frozenset(packages.split()))


GROUND = "errors units redact suggest vocabulary devices"
BELOW_MEASURE = f"{GROUND} scenario record"
READ = f"{GROUND} record graph passes timeline analyse simulate"
"""What reads a run and a forecast of it may import."""
TORCH = "torch torchvision psutil pynvml numpy fsspec PIL rich"
ROOMS: dict[str, Room] = {
    "errors": room(),
    "units": room(),
    "redact": room(),
    "vocabulary": room("errors units"),
    "suggest": room(),
    "environment": room(),
    "devices": room("errors units suggest"),
    "scenario": room(GROUND, "yaml pydantic pydantic_core"),
    "record": room(GROUND, "pyarrow numpy pydantic"),
    "record.remote": room(f"{GROUND} record", "fsspec"),
    "graph": room(f"{GROUND} record", "numpy"),
    "passes": room(f"{GROUND} record", "numpy"),
    "timeline": room(f"{GROUND} record graph passes", "numpy"),
    "measure.progress": room(GROUND, "rich"),
    "measure.device": room(BELOW_MEASURE, "torch"),
    "measure.host": room(f"{BELOW_MEASURE} measure.progress measure.device", TORCH),
    "measure.probe": room(f"{BELOW_MEASURE} measure.progress measure.host", TORCH),
    "measure.storage": room(f"{BELOW_MEASURE} measure.progress measure.host measure.probe", TORCH),
    "measure.accelerator": room(
        f"{BELOW_MEASURE} measure.progress measure.device measure.host measure.probe", TORCH
    ),
    "measure.data": room(
        f"{BELOW_MEASURE} measure.progress measure.host measure.probe measure.storage", TORCH
    ),
    "measure.session": room(
        f"{BELOW_MEASURE} environment measure.progress measure.device measure.host measure.probe", TORCH
    ),
    "measure.attach": room(
        f"{BELOW_MEASURE} measure.progress measure.host measure.probe measure.session", TORCH
    ),
    "measure.bench": room(
        f"{BELOW_MEASURE} measure.progress measure.device measure.host measure.probe measure.storage "
        "measure.accelerator measure.data measure.session",
        TORCH,
    ),
    "measure": room(),
    # runs in each interpreter that is started to be observed, and begins that when torch's loaders are used
    "startup": room("environment measure.session"),
    "analyse": room(f"{GROUND} record graph passes timeline", "pyarrow numpy"),
    "simulate": room(f"{GROUND} scenario record graph passes timeline analyse", "numpy"),
    "report.wording": room(READ),
    "report.page": room(f"{READ} report.wording", "pyarrow numpy jinja2 markupsafe altair vl_convert"),
    "report.text": room(f"{READ} report.wording", "numpy rich"),
    "report.export": room(f"{READ} report.wording", "pyarrow numpy perfetto tensorboard"),
    # of many runs: their tables are the same on the page and in the terminal
    "report": room(READ, "pyarrow numpy rich"),
    "lesson": room(
        f"{GROUND} scenario record graph passes timeline measure analyse simulate report",
        f"{TORCH} numpy altair rich markupsafe",
    ),
    # where measuring and analysing meet: `loader.verdict()`
    "wrapper": room(f"{GROUND} record graph timeline measure analyse", "torch"),
    # each module imports one optional library, and is imported by its users alone
    "integrations": room(
        "errors units record measure analyse wrapper",
        "torch lightning transformers opentelemetry pytest IPython ray",
    ),
    "cli": room(
        f"{GROUND} scenario record graph passes timeline measure analyse simulate report lesson", "click rich"
    ),
}
OWN: dict[str, Room] = {
    "measure.host.sensors.amd": room(packages="amdsmi"),
    "simulate.tuning.tune": room("measure"),  # it alone confirms by measuring
    "analyse.history.changes": room(packages="ruptures"),  # an extra
}


def test_imports_only_what_its_room_may() -> None:
    assert forbidden_imports(PACKAGE, ROOMS, OWN) == []


def test_no_two_rooms_may_import_each_other() -> None:
    assert room_circles(ROOMS) == []
    wings = {path.parent.name for path in (PACKAGE.root / "measure").glob("*/__init__.py")}
    assert {f"measure.{wing}" for wing in wings} <= set(ROOMS), "a wing without a row may do what all may"


def test_rooms_that_may_import_each_other_are_seen() -> None:
    low, middle, high = room("high"), room("low"), room("middle")
    assert room_circles({"low": low, "middle": middle, "high": high}) == ["low -> high -> middle -> low"]
    assert room_circles({"low": room(), "middle": middle, "high": high}) == []
    whole = {"low": room("high"), "high": room(), "high.wing": room("low")}
    assert room_circles(whole) == ["low -> high.wing -> low"], "what may import a room may import its wings"
    assert room_circles({"low": room(), "low.wing": room("low")}) == []


PREDICTING = {
    *("Predictor", "predict", "replay", "walk", "open_run", "read_demands"),
    *("rank", "choose", "headroom", "heat_map", "small_map", "what_would_it_take", "shared_storage"),
    *("predict_cells", "overview", "answer"),
}
"""What runs in virtual time, or searches. A report is handed what came of it."""


def test_drawing_predicts_nothing() -> None:
    drawing = [path for name, path in PACKAGE.modules.items() if name.startswith("report.")]
    names = {
        (path.name, alias.name)
        for path in drawing
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeprof.simulate")
        for alias in node.names
    }
    assert names, "a report shows predictions"
    whole = {name.rpartition(".")[2] for name in PACKAGE.modules if name.startswith("simulate.")}
    assert not {(path, name) for path, name in names if name in PREDICTING | whole}


ADAPTERS = {"measure.device.cuda": {"cuda", "backends", "version"}, "measure.device.mps": {"mps"}}
"""What each adapter alone names of torch: one backend's own."""


def test_a_backend_of_torch_is_named_by_its_adapter_alone() -> None:
    wrong = [
        f"{module} names torch.{name}"
        for module, path in PACKAGE.modules.items()
        for name in backends_named(ast.parse(path.read_text()))
        if name not in ADAPTERS.get(module, set())
    ]
    assert wrong == [], "ask `measure.device` for it"


@pytest.mark.parametrize(
    "hidden",
    [
        "import torch\ntorch.cuda.synchronize()",
        "import torch\nheld = torch.cuda",
        "import torch.cuda as gpu",
        "from torch import cuda",
        "from torch.cuda import Event",
        "import importlib\nimportlib.import_module('torch.cuda.nvtx')",
        "import torch\ngetattr(torch, 'cuda')",
        "import torch as t\nt.cuda.current_device()",
    ],
)
def test_a_hidden_backend_is_seen(hidden: str) -> None:
    assert set(backends_named(ast.parse(hidden))) == {"cuda"}
    assert set(backends_named(ast.parse(hidden.replace("cuda", "nn")))) == set()


def test_there_is_no_import_circle() -> None:
    assert import_circles(PACKAGE) == []


def test_a_class_is_the_only_one_of_its_name() -> None:
    shared = shared_names(PACKAGE)
    shared.pop("PipeprofCallback")  # Lightning and transformers have one each
    assert shared == {}, "give one of them a name that says what it is"


def test_two_classes_of_one_name_are_seen(tmp_path: Path) -> None:
    house = made(
        tmp_path, low__a="class Cell: ...\nclass _Own: ...", high__b="class Cell: ...\nclass _Own: ..."
    )
    assert shared_names(Package(house)) == {"Cell": ["high.b", "low.a"]}


def test_a_folder_can_be_taken_in() -> None:
    assert crowded_folders(PACKAGE, MOST_MODULES) == []


def made(root: Path, **files: str) -> Path:
    package = root / "house"
    for name, text in files.items():
        path = package / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(
    "hidden",
    [
        "def f():\n    from house.low import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.low.a import x",
        "import importlib\ndef f():\n    importlib.import_module('house.low.a')",
        "import house.low.a",
    ],
)
def test_a_hidden_circle_is_seen(tmp_path: Path, hidden: str) -> None:
    house = made(tmp_path, low__a="from house.low import b", low__b=hidden)
    assert import_circles(Package(house)) == ["low.a -> low.b -> low.a"]
    assert (
        import_circles(Package(made(tmp_path / "plain", low__a="from house.low import b", low__b=""))) == []
    )


def test_the_front_door_is_no_way_around_the_table(tmp_path: Path) -> None:
    house = made(tmp_path, low__a="def f():\n    from house import answer", high__b="answer = 1")
    rooms = {"low": room(), "high": room("low")}
    homes = {"answer": "house.high.b"}
    assert forbidden_imports(Package(house, homes), rooms, {}) == ["low.a imports high.b"]
    assert forbidden_imports(Package(house, homes), rooms, {"low.a": room("high")}) == []


def test_a_package_of_others_must_be_allowed(tmp_path: Path) -> None:
    house = made(tmp_path, low__a="import json\nimport torch")
    assert forbidden_imports(Package(house), {"low": room()}, {}) == ["low.a imports torch"]
    assert forbidden_imports(Package(house), {"high": room()}, {}) == ["low.a is in no room"]


def test_a_folder_of_thirty_files_is_seen(tmp_path: Path) -> None:
    house = made(tmp_path, **{f"low__m{i}": "" for i in range(30)})
    assert crowded_folders(Package(house), MOST_MODULES) == ["house/low holds 30 modules"]


def test_docstrings_and_names_are_in_plain_english() -> None:
    bad = [
        f"{module}: {text}"
        for module, path in PACKAGE.modules.items()
        for check in (vague_docstrings, empty_names, denials)
        for text in check(ast.parse(path.read_text()))
    ]
    assert bad == [], "see CONTRIBUTING.md, Plain English"


def test_what_is_not_plain_english_is_seen() -> None:
    tree = ast.parse(
        'def told(found: int):\n    """What was found."""\n\n'
        'class Node:\n    """How it is."""\n\n    one: int\n'
    )
    assert list(vague_docstrings(tree)) == ["told: What was found.", "Node: How it is."]
    assert sorted(empty_names(tree)) == ["line 1: found", "line 1: told", "line 7: one"]
    texts = ast.parse(
        """f"{x} is no share"; y = "there is no run", "it is no longer there", "these are no names\""""
    )
    assert list(denials(texts)) == ["line 1: is no s", "line 1: are no n"]


def test_each_folder_of_tests_is_a_package() -> None:
    """Else pytest imports its modules by path, under a second name."""
    folders = {path.parent for path in Path(__file__).parent.rglob("test_*.py")}
    packages = {
        folder
        for path in folders
        for folder in (path, *path.parents)
        if Path(__file__).parent in folder.parents
    }
    assert [folder for folder in packages if not (folder / "__init__.py").exists()] == []


MOST_LOOKUPS = 60
"""Look-ups by a literal key that may be absent, in the whole package: the record's are typed fields."""


def test_what_is_recorded_is_not_looked_up_by_hand() -> None:
    lookups = [
        f"{module}:{number}"
        for module, path in PACKAGE.modules.items()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if '.get("' in line
    ]
    assert len(lookups) < MOST_LOOKUPS, lookups
