from __future__ import annotations

from typing import Any

import pytest

from pipeprof.errors import MeasureError
from pipeprof.measure.probe.changes.arguments import means, read_changes, resolve

GIVEN: dict[str, Any] = {
    "dataset": "data",
    "num_workers": 2,
    "prefetch_factor": 4,
    "persistent_workers": True,
    "multiprocessing_context": "spawn",
    "timeout": 5,
    "pin_memory": False,
    "in_order": True,
}


def test_names_of_torch_and_of_scenarios() -> None:
    changes = read_changes(["loader.workers=8", "loader.prefetch=4", "val.pin_memory=Yes", "val.workers=1"])
    assert changes.of("train") == {"num_workers": 8, "prefetch_factor": 4}
    assert changes.of("val_loader") == {"num_workers": 1, "prefetch_factor": 4, "pin_memory": True}
    assert changes.names == ("val",)


def test_none_for_one_loader_leaves_out_what_all_get_of_workers() -> None:
    changes = read_changes(["loader.prefetch_factor=4", "loader.in_order=false", "val.num_workers=0"])
    assert changes.of("val") == {"num_workers": 0, "in_order": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loader.num_worker=8", "did you mean num_workers?"),
        ("lr=8", "write it as loader.num_workers=8"),
        ("loader.num_workers", "write it as"),
        ("loader.num_workers=many", "give a whole number from 0"),
        ("loader.num_workers=-1", "give a whole number from 0"),
        ("loader.num_workers=1e9", "give a whole number"),
        ("loader.prefetch_factor=0", "give a whole number from 1"),
        ("loader.pin_memory=2", "give true or false"),
        ("loader.multiprocessing_context=thread", "give one of fork"),
        ("loader.batch_size=8", "changes what is learned"),
        ("loader.shuffle=true", "changes what is learned"),
    ],
)
def test_what_cannot_be_set(text: str, said: str) -> None:
    with pytest.raises(MeasureError, match="--set") as raised:
        read_changes([text])
    assert said in str(raised.value)


def test_what_needs_workers_is_refused_without_them() -> None:
    with pytest.raises(MeasureError, match="without workers"):
        read_changes(["loader.num_workers=0", "loader.prefetch=4"])
    with pytest.raises(MeasureError, match=r"cannot be set without workers \(the loader val"):
        resolve({**GIVEN, "num_workers": 0}, {"prefetch_factor": 4}, "the loader val")


def test_without_workers_the_scripts_own_arguments_for_them_go() -> None:
    resolved = resolve(GIVEN, {"num_workers": 0}, "here")
    assert {key: resolved[key] for key in ("prefetch_factor", "persistent_workers", "timeout")} == {
        "prefetch_factor": None,
        "persistent_workers": False,
        "timeout": 0,
    }
    assert resolved["multiprocessing_context"] is None
    assert resolve(resolved, {"num_workers": 0}, "here") == resolved, "a rebuilt loader goes through it again"


def test_an_argument_that_the_class_does_not_have() -> None:
    given = {name: value for name, value in GIVEN.items() if name != "in_order"}
    with pytest.raises(MeasureError, match="has no in_order"):
        resolve(given, {"in_order": False}, "here")


@pytest.mark.parametrize("name", ["val", "val_loader", "val_dataloader", "val_dl", "valloader"])
def test_a_short_name_means_the_loader(name: str) -> None:
    assert means("val", name)
    assert not means("train", name)


def test_an_argument_without_a_loader_is_of_all() -> None:
    assert read_changes(["num_workers=8"]) == read_changes(["loader.num_workers=8"])
