"""The seam in torch: one private name, and what happens where a torch has it no more."""

from __future__ import annotations

import gc
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import pipeprof
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.session.session import Session
from pipeprof.record.reader import load
from tests.measure.session import loader_cases as cases


@pytest.mark.parametrize("name", hook.PRIVATE)
def test_torch_has_the_private_names_that_are_used(name: str) -> None:
    assert hasattr(DataLoader, name), (
        f"torch {torch.__version__} has no DataLoader.{name} any more: loaders run and are not observed"
    )


@pytest.mark.parametrize("name", hook.PRIVATE_OF_LOADERS)
def test_torchs_loaders_have_the_private_names_that_are_used(name: str) -> None:
    loader = DataLoader(cases.Squares(8), num_workers=1, persistent_workers=True)
    assert getattr(loader, name) is None
    assert not hook.keeps_iterator(loader)
    iterator = iter(loader)
    assert getattr(loader, name) is iterator
    assert hook.keeps_iterator(loader)


@pytest.mark.parametrize("name", hook.PRIVATE_OF_ITERATORS)
def test_torchs_iterators_have_the_private_names_that_are_used(name: str) -> None:
    iterator = iter(DataLoader(cases.Squares(8), num_workers=1))
    assert len(getattr(iterator, name)) == 1
    assert all(process.is_alive() for process in hook.workers_of(iterator))


def test_a_torch_without_the_seam_is_not_observed_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_iterator = DataLoader.__dict__[hook.PRIVATE[0]]
    monkeypatch.setattr(DataLoader, "__iter__", make_iterator)
    monkeypatch.delattr(DataLoader, hook.PRIVATE[0])
    monkeypatch.setattr(hook, "PRIVATE_CLASSES", ())
    loader = DataLoader(cases.Squares(8), batch_size=2)
    with (
        pytest.warns(RuntimeWarning, match="not observed"),
        pipeprof.profile(loader, out=tmp_path / "run") as profiled,
    ):
        assert len(list(profiled)) == 4
    assert len(load(tmp_path / "run").table("steps")) == 0
    assert any("not observed" in warning for warning in load(tmp_path / "run").meta.warnings)


def seams() -> dict[str, Any]:
    """What torch's loaders have in the places that are replaced."""
    return {
        "loader": DataLoader.__dict__.get("_get_iterator"),
        "stateful": StatefulDataLoader.__dict__.get("_get_iterator"),
        "subclass": DataLoader.__dict__.get("__init_subclass__"),
    }


def test_torch_is_put_back_when_no_one_observes(tmp_path: Path) -> None:
    gc.collect()  # loaders of other tests
    plain = seams()
    assert plain["subclass"] is None
    first, second = (Session(tmp_path / name) for name in ("first", "second"))
    held = [first.observe(DataLoader(cases.Squares(4))), second.observe(DataLoader(cases.Squares(4)))]
    replaced = seams()
    assert all(replaced[name] is not plain[name] for name in plain)
    first.close()
    assert seams() == replaced, "the second session observes still"
    second.close()
    assert seams() == plain
    assert [len(list(loader)) for loader in held] == [4, 4]
    with pipeprof.profile(held[0]):
        assert seams() != plain
    assert seams() == plain


class OwnIterator(DataLoader[Any]):
    """A loader with an override of the private method, and a generator for `__iter__`."""

    def _get_iterator(self) -> Any:
        return super()._get_iterator()

    def __iter__(self) -> Any:
        yield from super().__iter__()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_subclass_that_overrides_the_seam(workers: int, tmp_path: Path) -> None:
    loader = OwnIterator(cases.Stream(8), batch_size=2, num_workers=workers)
    with pipeprof.profile(loader, out=tmp_path / "run"):
        batches = list(loader)
    assert [batch[1].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert len(load(tmp_path / "run").table("steps")) == 4


def test_an_iterator_is_of_its_own_class_still() -> None:
    loader = DataLoader(cases.Squares(4))
    plain = type(iter(loader))
    with pipeprof.profile(loader):
        watched = iter(loader)
        assert isinstance(watched, plain)
        assert type(watched).__qualname__ == plain.__qualname__
        del watched
    assert type(iter(loader)) is plain


def test_loaders_that_no_one_named_are_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(cases.Squares(4))
        with pipeprof.profile(DataLoader(cases.Squares(4))):
            assert hook.observer_of(loader) is None
            assert "_pipeprof_watch" not in iter(loader).__dict__


class Ends:
    """An iterator whose end fails, as that of torch's does in a forked child."""

    def __next__(self) -> None:
        raise StopIteration

    def __del__(self) -> None:
        raise AssertionError("can only test a child process")


class Noting:
    """Notes that an iterator is dropped."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def next(self, original: Any, iterator: Any) -> Any:
        return original(iterator)

    def dropped(self) -> None:
        self.noted.append("dropped")


def test_an_error_at_its_end_is_told_as_without_us(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Noting()

    def told(is_watched: bool) -> list[Any]:
        said: list[Any] = []

        def note(ignored: Any) -> None:
            frames = [each.name for each in traceback.extract_tb(ignored.exc_traceback)]
            said.append((repr(ignored.object), ignored.err_msg, repr(ignored.exc_value), frames))

        monkeypatch.setattr(sys, "unraisablehook", note)
        iterator = Ends()
        assert not is_watched or hook.watch(iterator, watcher)
        del iterator
        return said

    assert told(is_watched=True) == told(is_watched=False)
    assert watcher.noted == ["dropped"]


LIVE_TO_THE_END = """
import pipeprof, torch
from torch.utils.data import DataLoader
data = torch.arange(16.0)
loader = DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True)
with pipeprof.profile(loader):
    for _ in loader:
        pass
other = pipeprof.ProfiledDataLoader(data, batch_size=4, num_workers=1)
iterator = iter(other)
next(iterator)
"""


def test_iterators_that_live_as_long_as_the_interpreter_say_nothing(tmp_path: Path) -> None:
    """Names of a module are gone by then."""
    command = [sys.executable, "-c", LIVE_TO_THE_END]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
