"""Apple's GPUs: one stream, one device, and memory that host and device share."""

from __future__ import annotations

from typing import Any

import torch

from pipeprof.measure.device.any_device import TorchDevice
from pipeprof.record.meta import AcceleratorMeta


class MpsDevice(TorchDevice):
    """The GPU of a Mac. A copy to it moves within one memory, and pinning gains nothing."""

    pins = False
    side_streams = False

    def __init__(self, module: Any = torch.mps) -> None:
        super().__init__("mps", module)

    def in_use(self) -> bool:
        """Return whether the program holds memory of it: torch has no word for an opened one."""
        return bool(self._module.is_available()) and self.busiest() is not None

    def busiest(self) -> int | None:
        """Return the only device, if the program holds memory of it."""
        return 0 if self.held_bytes(0) else None

    def held_bytes(self, index: int) -> int | None:
        """Return the memory that the program has allocated."""
        return int(self._module.current_allocated_memory())

    def new_stream(self) -> Any:
        """Return the only stream."""
        return self.current_stream()

    def is_pinned(self, tensor: Any) -> bool:
        """Return False: there is no second memory from which a copy could be slower."""
        return False

    def pin(self, tensor: Any) -> Any:
        """Return None: there is no second memory."""
        return None

    def keep_for(self, tensor: Any, stream: Any) -> None:
        """Do nothing: there is one stream."""

    def facts(self, index: int) -> AcceleratorMeta:
        """Return the kind: torch gives no name."""
        return AcceleratorMeta(kind=self.kind, name="Apple GPU", emulated=False, device=index)

    def memory_bytes(self, index: int) -> int | None:
        """Return what Metal recommends to use at most."""
        return int(self._module.recommended_max_memory())
