"""Errors of workers are sent without frames of ours, and torch's own way is put back afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data._utils import worker

from pipeprof import measure
from pipeprof.measure.probe import own_frames
from pipeprof.measure.probe.own_frames import hide_in_worker
from pipeprof.measure.probe.patches import release
from pipeprof.measure.probe.ring import Slot

ROOMS = ("probe", "session", "attach")


def sent(room: str) -> str:
    """Return the text of an error that came through a file of a room of ours."""
    path = Path(str(measure.__file__)).parent / room / "proxies.py"
    names: dict[str, Any] = {}
    exec(compile("def ask(theirs): theirs()", str(path), "exec"), names)

    def theirs() -> None:
        raise ValueError("the sample breaks")

    try:
        names["ask"](theirs)
    except ValueError:
        return str(worker.ExceptionWrapper(where="in a worker").exc_msg)
    raise AssertionError


@pytest.mark.parametrize("room", ROOMS)
def test_a_worker_sends_errors_without_our_frames_until_it_is_left(room: str) -> None:
    real = worker.ExceptionWrapper
    assert f"{room}/proxies.py" in sent(room)
    hide_in_worker("a test")
    try:
        text = sent(room)
        assert "proxies.py" not in text and "in theirs" in text and "the sample breaks" in text
    finally:
        release("a test")
    assert worker.ExceptionWrapper is real


def test_a_torch_without_that_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(worker, "ExceptionWrapper")
    own_frames.hide_in_worker("a test")
    assert not hasattr(worker, "ExceptionWrapper")


def test_what_is_compiled_from_text_is_known_for_ours() -> None:
    assert Slot.put_batch.__code__.co_filename.startswith(own_frames.OWN)
