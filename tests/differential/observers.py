"""The ways in which a loader is observed, each as a context that makes one of keywords."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from torch.utils.data import DataLoader

from pipeprof import ProfiledDataLoader, profile
from pipeprof.measure.attach.control import Control
from pipeprof.measure.attach.inside import Attachment
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.session.session import Session
from tests.differential.digests import Observe


@contextmanager
def plain(keywords: dict[str, Any]) -> Iterator[Any]:
    yield DataLoader(**keywords)


@contextmanager
def wrapper(keywords: dict[str, Any], session: Session | None = None) -> Iterator[Any]:
    yield ProfiledDataLoader(session=session, **keywords)


@contextmanager
def block(keywords: dict[str, Any]) -> Iterator[Any]:
    with profile(DataLoader(**keywords), lines=True) as loader:
        yield loader


@contextmanager
def traced() -> Iterator[Observe]:
    """Observe every loader of this process, as `pipeprof trace` does."""
    with Session(kind="trace", lines=True) as session:
        hook.observe_all(session.watch_of)
        try:
            yield plain
        finally:
            hook.observe_no_more(session.watch_of)
    session.discard()


@contextmanager
def attached() -> Iterator[Observe]:
    """Observe every loader that is made from now on, from the inside of `pipeprof attach`."""
    with tempfile.TemporaryDirectory() as made:
        wanted = {"out": f"{made}/run", "steps": None, "lines": True, "telemetry_hz": 0.0}
        control = Control.make({**wanted, "hang_after": None, "path": None, "workers": []})
        attachment = Attachment(control, control.request())
        attachment.enter()
        try:
            yield plain
        finally:
            control.stop()
            while Attachment.current is attachment:  # its thread leaves, and has this one leave the loops
                time.sleep(0.01)
            control.remove()


@contextmanager
def joined() -> Iterator[Observe]:
    """Make ProfiledDataLoaders of one session: what takes time is its beginning and its end."""
    with Session() as session:
        yield partial(wrapper, session=session)
    session.discard()


@contextmanager
def _same(observe: Observe) -> Iterator[Observe]:
    yield observe


WAYS: Final = {
    "trace": traced,
    "attach": attached,
    "ProfiledDataLoader": joined,
    "ProfiledDataLoader, each its own": lambda: _same(wrapper),
    "profile": lambda: _same(block),
}
"""By name. A context that gives the way to observe one loader."""
