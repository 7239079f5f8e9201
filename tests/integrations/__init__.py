"""pipeprof beside the libraries whose loops and loaders it promises to observe, each the real one."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest

from pipeprof.measure.session.session import Session
from pipeprof.measure.session.steps.steps import Steps


def needs(module: str) -> pytest.MarkDecorator:
    """Skips where a library is not installed, without importing it: that takes some of them seconds."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the loop's side of a session was called, by name."""
    calls = Counter[str]()

    def counted(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        def count(self: Any, *arguments: Any) -> Any:
            calls[name] += 1
            return original(self, *arguments)

        return count

    for owner, name in ((Steps, "requested"), (Steps, "took"), (Session, "summary")):
        monkeypatch.setattr(owner, name, counted(owner, name))
    return calls
