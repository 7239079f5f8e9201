"""Scenarios: what to measure, as validated frozen data. YAML in, scenarios out; matrices expanded.

This room knows what may be said and what it means; it never imports torch and never measures.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Tier = Literal["hdd", "ssd", "nvme", "network", "ram", "pinned"]
DataFormat = Literal["jpeg_folder", "tensor_files", "tar_shards", "image_folder", "imported"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class DataPart(_Part):
    """The samples: made by pipeprof, or the user's own."""

    format: DataFormat = "jpeg_folder"
    samples: PositiveInt = 2048
    """How many samples to make; at most how many to use of one's own."""
    sample_bytes: PositiveInt | None = None
    """Mean size of a made sample; by default what the format is like (about 110 KB for JPEG)."""
    seed: NonNegativeInt = 0
    path: str | None = None
    """Directory of the user's own images (`image_folder`)."""
    import_: Annotated[str | None, Field(alias="import")] = None
    """`package.module:callable` that returns the user's own dataset (`imported`)."""
    crop: PositiveInt = 224
    """Side of the square that the image transforms cut out, in pixels."""


class StoragePart(_Part):
    """Where the data lives. Without `path` the disks and the network are emulated."""

    tier: Tier = "ssd"
    path: str | None = None
    """A real directory to keep the data in: nothing is emulated then."""
    device: str | None = None
    """Preset of the emulated device; by default the tier's own."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Figures of the emulated device to change, such as `bandwidth_bytes_per_s`."""
    profile: str | None = None
    """A device profile that `pipeprof devices --measure` saved."""
    cache: Literal["cold", "warm"] = "cold"
    cache_bytes: NonNegativeInt | None = None
    """How much of the set may stay in memory, to reproduce thrashing."""
    keep: Literal["encoded", "decoded"] = "encoded"
    """What `ram` and `pinned` hold: the files' bytes or decoded tensors."""


class LoaderPart(_Part):
    """The arguments of torch's DataLoader that the lesson turns."""

    batch_size: PositiveInt = 32
    workers: NonNegativeInt = 4
    prefetch: PositiveInt | None = None
    """Batches that each worker holds ready; 2 by default, and only with workers."""
    pin_memory: bool = False
    persistent_workers: bool = False
    in_order: bool = True
    shuffle: bool = True
    drop_last: bool = True
    start_method: Literal["fork", "spawn", "forkserver"] | None = None


class ModelPart(_Part):
    """The network that is trained, where the accelerator really computes."""

    name: str = "resnet18"
    """`two_layer_net` or any classification model of torchvision."""
    weights: str | None = None
    """A local checkpoint to start from."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "lbfgs"] = "sgd"
    learning_rate: PositiveFloat = 1e-2
    classes: PositiveInt = 1000


class AcceleratorPart(_Part):
    """What computes. `auto` is CUDA where there is one, else emulated."""

    kind: Literal["auto", "cuda", "cpu", "emulated"] = "auto"
    preset: str | None = None
    """Of the emulated one, such as `h100/resnet50`."""
    step_ms: NonNegativeFloat | None = None
    """Step time of the emulated one for one whole batch."""
    step_spread_ms: NonNegativeFloat = 0.0
    queue_depth: PositiveInt = 2
    link: str = "pcie-gen3"
    sync: bool = False
    """The loop waits for each step, as `.item()` makes it."""
    compile: bool = False
    amp: bool = False
    channels_last: bool = False
    cudnn: bool = True
    prefetch_to_device: bool = False
    """Copy the next batch on a side stream while this one computes."""


class RunPart(_Part):
    """How long to measure."""

    steps: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    warmup_steps: NonNegativeInt = 5
    seed: NonNegativeInt = 0


class ExpectPart(_Part):
    """What this scenario teaches, checked after the run."""

    cause: str | list[str] | None = None
    fix: str | list[str] | None = None
    band: Literal["not", "moderately", "highly"] | None = None
    min_stall: Annotated[float, Field(ge=0, le=1)] | None = None
    max_stall: Annotated[float, Field(ge=0, le=1)] | None = None


class Scenario(_Part):
    """One run, fully said."""

    name: str
    about: str = ""
    """One or two sentences: what it teaches."""
    data: DataPart = DataPart()
    storage: StoragePart = StoragePart()
    loader: LoaderPart = LoaderPart()
    model: ModelPart = ModelPart()
    accelerator: AcceleratorPart = AcceleratorPart()
    run: RunPart = RunPart()
    expect: ExpectPart | None = None
    matrix: dict[str, list[Any]] = Field(default_factory=dict)
    """Dotted keys to lists of values; expands to one run a cell."""
