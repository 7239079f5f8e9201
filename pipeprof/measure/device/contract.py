"""The Device contract: what is asked of an accelerator, whoever made it.

`any_device.TorchDevice` answers it through `torch.accelerator`, `torch.Event` and `torch.Stream`; the modules
beside it answer what differs for a backend. No other module names one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipeprof.record.meta import AcceleratorMeta


class DeviceEvent(Protocol):
    """A mark in a stream, which takes the device's time when the stream reaches it."""

    def record(self, stream: Any) -> None:
        """Put the mark behind what `stream` has been given until now."""
        ...

    def query(self) -> bool:
        """Return whether the stream has passed it. Never wait."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream has passed it."""
        ...

    def elapsed_time(self, end_event: Any) -> float:
        """Return the milliseconds to a later event. Raises if one has not passed, or has no time."""
        ...


class Stream(Protocol):
    """A queue of the device, worked off in order."""

    def synchronize(self) -> None:
        """Wait until all that it was given is done."""
        ...

    def wait_event(self, event: Any) -> None:
        """Let what it is given from now on wait for `event`."""
        ...


class Device(Protocol):
    """A kind of accelerator, with all its devices of this machine. Raises what the driver raises."""

    kind: str
    """`cuda`, `rocm`, `xpu`, `mps`, or the name that a backend of others gave itself."""
    torch_name: str
    """Its name in `torch.device`."""
    pins: bool
    """True if copies from page-locked memory need not block the host."""
    side_streams: bool
    """True if it has more than one stream."""

    has_library: bool
    """True if `libraries` switches something."""

    def in_use(self) -> bool:
        """Return whether the program computes on it. Opens nothing and asks no driver."""
        ...

    def count(self) -> int:
        """Return how many of its devices there are."""
        ...

    def index(self) -> int:
        """Return the number of the current one."""
        ...

    def select(self, index: int) -> None:
        """Make number `index` the current one."""
        ...

    def busiest(self) -> int | None:
        """Return the number of the device that holds most of the program's memory; None if none does."""
        ...

    def held_bytes(self, index: int) -> int | None:
        """Return the memory that the program holds on device `index`; None if the backend does not say."""
        ...

    def current_stream(self, index: int | None = None) -> Any:
        """Return the current stream of device `index`, by default of the current one."""
        ...

    def new_stream(self) -> Any:
        """Make a stream on the current device."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[None]:
        """Make `stream` the current one while the block lasts."""
        ...

    def event(self, index: int | None = None) -> Any:
        """Make a timed event for device `index`, by default for the current one."""
        ...

    def capturing(self) -> bool:
        """Return whether the current stream is being captured into a graph, and an event would be too."""
        ...

    def synchronize(self) -> None:
        """Wait for all streams of the current device."""
        ...

    def move(self, tensor: Any, non_blocking: bool) -> Any:
        """Copy a tensor to the current device, through the current stream."""
        ...

    def is_pinned(self, tensor: Any) -> bool:
        """Return whether a tensor is in page-locked memory."""
        ...

    def pin(self, tensor: Any) -> Any:
        """Return a copy of a tensor in page-locked memory; None if that gains nothing."""
        ...

    def keep_for(self, tensor: Any, stream: Any) -> None:
        """Give the memory of `tensor` to no one else before `stream` has done what it has been given."""
        ...

    def libraries(self, enabled: bool) -> AbstractContextManager[Any]:
        """Use the vendor's library of network kernels (cuDNN, MIOpen) while the block lasts, or do not."""
        ...

    def facts(self, index: int) -> AcceleratorMeta:
        """Return what `run.json` records of device `index`."""
        ...

    def memory_bytes(self, index: int) -> int | None:
        """Return the size of its memory; None if it is not observed."""
        ...
