from __future__ import annotations

from tests.measure.attach.jobs import ptrace_right

__all__ = ["ptrace_right"]
