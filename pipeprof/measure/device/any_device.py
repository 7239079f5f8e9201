"""Any accelerator that torch knows, through `torch.accelerator`, `torch.Event` and `torch.Stream`.

XPU and PrivateUse1 backends need no more than this; CUDA, ROCm and MPS have adapters for what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from pipeprof.record.meta import AcceleratorMeta

_API: Any = torch.accelerator


class TorchDevice:
    """The accelerator that this torch was built for, or that a PrivateUse1 backend has registered.

    `module` is the backend's own, as `torch.get_device_module` returns it: names and memory come from there,
    if it has them.
    """

    pins = True
    side_streams = True
    has_library = False

    def __init__(self, torch_name: str, module: Any = None) -> None:
        self.kind = self.torch_name = torch_name
        self._module: Any = torch.get_device_module(torch_name) if module is None else module

    def in_use(self) -> bool:
        """Return whether its runtime is initialised; a backend that does not say is used if available."""
        asked = getattr(self._module, "is_initialized", None) or self._module.is_available
        return bool(asked())

    def count(self) -> int:
        """Return how many of its devices there are."""
        return int(_API.device_count())

    def index(self) -> int:
        """Return the number of the current one. Until torch 2.8 the call had another name."""
        asked = getattr(_API, "current_device_index", None) or _API.current_device_idx
        return int(asked())

    def select(self, index: int) -> None:
        """Make number `index` the current one."""
        (getattr(_API, "set_device_index", None) or _API.set_device_idx)(index)

    def busiest(self) -> int | None:
        """Return the device that holds most memory; the current one if the backend does not say."""
        held = [self.held_bytes(index) for index in range(self.count())]
        known = [size for size in held if size is not None]
        if len(known) < len(held):
            return self.index()
        return held.index(max(known)) if any(known) else None

    def held_bytes(self, index: int) -> int | None:
        """Return the memory that torch has allocated on device `index`."""
        asked = getattr(self._module, "memory_allocated", None)
        return None if asked is None else int(asked(index))

    def current_stream(self, index: int | None = None) -> Any:
        """Return the current stream of device `index`."""
        return _API.current_stream(index)

    def new_stream(self) -> Any:
        """Make a stream on the current device."""
        return torch.Stream(self._device(None))

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """Make `stream` the current one. Before torch 2.7 a `torch.Stream` was not a context manager."""
        before = _API.current_stream()
        _API.set_stream(stream)
        try:
            yield
        finally:
            _API.set_stream(before)

    def event(self, index: int | None = None) -> Any:
        """Make a timed event."""
        return torch.Event(self._device(index), enable_timing=True)

    def _device(self, index: int | None) -> torch.device:
        return torch.device(self.torch_name, self.index() if index is None else index)

    def capturing(self) -> bool:
        """Return False: only CUDA and ROCm capture graphs in the torch versions before `is_capturing`."""
        asked = getattr(_API.current_stream(), "is_capturing", None)
        return bool(asked()) if asked is not None else False

    def synchronize(self) -> None:
        """Wait for all streams of the current device."""
        _API.synchronize()

    def move(self, tensor: Any, non_blocking: bool) -> Any:
        """Copy a tensor to the current device."""
        return tensor.to(self.torch_name, non_blocking=non_blocking)

    def is_pinned(self, tensor: Any) -> bool:
        """Return whether a tensor is in page-locked memory."""
        return bool(tensor.is_pinned())

    def pin(self, tensor: Any) -> Any:
        """Return a copy of a tensor in page-locked memory."""
        return tensor.pin_memory()

    def keep_for(self, tensor: Any, stream: Any) -> None:
        """Tell torch's allocator that `stream` uses the memory of `tensor`."""
        tensor.record_stream(stream)

    def libraries(self, enabled: bool) -> AbstractContextManager[Any]:
        """Change nothing: torch has no such switch for this backend."""
        return nullcontext()

    def facts(self, index: int) -> AcceleratorMeta:
        """Return kind, name and number; the UUID if the backend has one."""
        properties = self._properties(index)
        asked = getattr(self._module, "get_device_name", None)
        named = getattr(properties, "name", None) or (asked(index) if asked is not None else None)
        uuid = getattr(properties, "uuid", None)
        return AcceleratorMeta(
            kind=self.kind,
            name=str(named or self.torch_name),
            emulated=False,
            device=index,
            uuid=None if uuid is None else str(uuid),
        )

    def memory_bytes(self, index: int) -> int | None:
        """Return the size of its memory."""
        size = getattr(self._properties(index), "total_memory", None)
        return None if size is None else int(size)

    def _properties(self, index: int) -> Any:
        asked = getattr(self._module, "get_device_properties", None)
        return asked(index) if asked is not None else None
