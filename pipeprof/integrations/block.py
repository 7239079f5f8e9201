"""Observation of every DataLoader that is iterated while a block of code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.session.session import Session


@contextmanager
def observed_block(out: Path, name: str, lines: bool = True) -> Iterator[Session]:
    """Record the block as a run in `out`, whatever it ends with. Raises `TraceError` if it cannot."""
    with Session(out, "block", name, lines=lines) as session:
        hook.observe_all(session.watch_of)
        try:
            yield session
        finally:
            hook.observe_no_more(session.watch_of)
