"""The user's own data set: found beside the current directory, and one clear error for what can be wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from pipeprof.errors import DataError
from pipeprof.measure.data.open import dataset_files, describe_data, open_dataset
from pipeprof.measure.storage.real import MemoryStorage
from pipeprof.scenario import Scenario

MODULE = """
from torch.utils.data import Dataset, IterableDataset

class Squares(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return index * index

class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))

class Nested:
    make = Squares

def broken():
    raise ValueError("no such bucket")

def leaves():
    raise SystemExit(3)

def empty():
    return []

def nothing():
    return None

def loader():
    from torch.utils.data import DataLoader
    return DataLoader(Squares())

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, in the current directory, which is not on the path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    for name in [name for name in sys.modules if name.startswith("own_data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_data_module.py").write_text(MODULE)
    (tmp_path / "own_data_package").mkdir()
    (tmp_path / "own_data_package" / "__init__.py").write_text("")
    (tmp_path / "own_data_package" / "sets.py").write_text(MODULE)
    (tmp_path / "own_data_raises.py").write_text("x = 1\nraise RuntimeError('at import')\n")
    (tmp_path / "own_data_needs.py").write_text("import a_module_that_is_not_there\n")
    return tmp_path


def opened(target: str, samples: int = 100, **more: Any) -> Any:
    data = {"format": "imported", "import": target, "samples": samples}
    return open_dataset(Scenario(name="x", data=data, **more), MemoryStorage("ssd"))


@pytest.mark.parametrize(
    "target",
    ["own_data_module:Squares", "own_data_package.sets:Squares", "own_data_module:Nested.make"],
)
def test_a_data_set_beside_the_current_directory(target: str) -> None:
    assert len(opened(target)) == 100
    assert opened(target)[7] == 49


def test_at_most_the_samples_asked_for_at_even_distances() -> None:
    dataset = opened("own_data_module:Squares", samples=4)
    assert [dataset[i] for i in range(len(dataset))] == [0, 625, 2500, 5625]


def test_an_iterable_one_is_used_as_it_is() -> None:
    assert list(opened("own_data_module:Stream", samples=2)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_find_the_module_too(method: str) -> None:
    loader = DataLoader(
        opened("own_data_module:Squares", 6), 3, num_workers=1, multiprocessing_context=method
    )
    assert [batch.tolist() for batch in loader] == [[0, 256, 1089], [2500, 4356, 6889]]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("own_data_missing:f", "there is no module own_data_missing, neither installed nor in /"),
        ("own_data_package.missing:f", "there is no module own_data_package.missing"),
        ("own_data_module:Square", "own_data_module has no Square\ndid you mean Squares?"),
        ("own_data_module:number", "own_data_module:number is not callable"),
        ("own_data_module:broken", r"broken\(\) raised ValueError: no such bucket\nsee .*module.py, line"),
        ("own_data_module:leaves", r"leaves\(\) raised SystemExit: 3"),
        ("own_data_module:empty", "returned an empty data set"),
        ("own_data_module:nothing", "returned a NoneType, which is not a data set"),
        ("own_data_module:loader", "returned a DataLoader, which is not a data set"),
        ("own_data_raises:f", "importing own_data_raises raised RuntimeError: at import\nsee .*, line 2"),
        ("own_data_needs:f", "importing own_data_needs raised ModuleNotFoundError: .*a_module_that"),
    ],
)  # fmt: skip
def test_what_can_be_wrong_is_one_clear_error(target: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(target)


def test_it_cannot_be_loaded_into_ram_by_us() -> None:
    with pytest.raises(DataError, match=r"storage.tier is ram.*\n.*in your callable"):
        opened("own_data_module:Squares", storage={"tier": "ram"})


def test_its_files_are_those_below_the_path_it_names(module: Path) -> None:
    data = {"format": "imported", "import": "own_data_module:Squares"}
    assert len(dataset_files(Scenario(name="x", data=data))) == 0
    below = {**data, "path": str(module / "own_data_package")}
    assert {path.name for path in dataset_files(Scenario(name="x", data=below))} >= {"__init__.py", "sets.py"}


def test_its_sizes_are_not_observed() -> None:
    facts = describe_data(
        Scenario(name="x", data={"format": "imported", "import": "own_data_module:Squares"})
    )
    assert facts.mean_bytes is facts.mean_decode_ns is None
