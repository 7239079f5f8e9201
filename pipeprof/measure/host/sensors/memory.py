"""The sensor of the machine's memory."""

from __future__ import annotations

import psutil


def memory() -> dict[str, float]:
    """Return the bytes in use and those that a new program could get."""
    now = psutil.virtual_memory()
    return {"memory.used_bytes": now.used, "memory.available_bytes": now.available}
