"""CUDA, and ROCm behind the same names of torch: the one module that says `torch.cuda`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from pipeprof.measure.device.any_device import TorchDevice
from pipeprof.record.meta import AcceleratorMeta


class CudaDevice(TorchDevice):
    """NVIDIA's devices, or AMD's if torch was built for HIP."""

    has_library = True

    def __init__(self, module: Any = torch.cuda) -> None:
        super().__init__("cuda", module)
        self.kind = "rocm" if torch.version.hip else "cuda"

    def capturing(self) -> bool:
        """Return whether the current stream is being captured into a graph."""
        return bool(self._module.is_current_stream_capturing())

    def libraries(self, enabled: bool) -> AbstractContextManager[Any]:
        """Switch cuDNN, or MIOpen in its place."""
        return nullcontext() if enabled else torch.backends.cudnn.flags(enabled=False)

    def facts(self, index: int) -> AcceleratorMeta:
        """Return what any device reports, and the version of the toolkit."""
        return replace(super().facts(index), cuda=torch.version.cuda, hip=torch.version.hip)
