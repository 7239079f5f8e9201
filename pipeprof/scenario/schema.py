"""The schema: every key of a scenario, its type, its default and one sentence of what it means.

The sentences are the descriptions of the JSON Schema, so that an editor shows them while a scenario is
written. What keys mean together is in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from pipeprof.devices import ACCELERATORS, LINKS, STORAGE, Tier
from pipeprof.vocabulary.arguments import MOST_TELEMETRY_HZ
from pipeprof.vocabulary.bands import BandWord

DataFormat = Literal["jpeg_folder", "tensor_files", "tar_shards", "image_folder", "imported"]
Optimizer = Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "lbfgs"]
Share = Annotated[float, Field(ge=0, le=1)]

DEFAULT_SECONDS: Final = 20.0
"""Seconds that a run lasts that names no end."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[
    list[str],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
"""Word or list of words; always a list once read."""


def _preset(names: Iterable[str]) -> Any:
    """Make the field of a name out of a table of presets: completed by editors, checked in `checks`."""
    return Field(default=None, json_schema_extra={"examples": list[JsonValue](sorted(names))})


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class DataPart(_Part):
    """The samples: made by pipeprof, or the user's own."""

    format: DataFormat = "jpeg_folder"
    """`jpeg_folder`, `tensor_files` and `tar_shards` are made and kept in the cache directory;
    `image_folder` is a directory of your own images, `imported` a dataset of your own code."""
    samples: PositiveInt = 2048
    """Number of samples to make; of your own, the number to use at the most."""
    sample_bytes: PositiveInt | None = None
    """Mean size of a made sample in bytes; by default what the format is like (about 110 KB for JPEG)."""
    seed: NonNegativeInt = 0
    """Seed of the random numbers that the made samples come from."""
    path: str | None = None
    """Directory of your own images (`image_folder`), or the one that your own dataset reads (`imported`)."""
    import_: Annotated[str | None, Field(alias="import")] = None
    """`package.module:callable` that returns your own dataset (`imported`)."""
    crop: PositiveInt = 224
    """Side of the square that the image transforms cut out, in pixels."""


class StoragePart(_Part):
    """Storage of the data. Without `path` the disks and the network are emulated."""

    tier: Tier = "ssd"
    """The kind of place, `network` for a remote one. `ram` and `pinned` load the set into memory first."""
    path: str | None = None
    """A real directory to keep the data in, or a remote one such as `s3://bucket/prefix`: no storage is
    emulated then."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that fsspec needs for a remote place, such as `endpoint_url` or `anon`; never credentials."""
    device: str | None = _preset(STORAGE)
    """Preset of the emulated device; by default the tier's own."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Figures of the emulated device to change, such as `bandwidth_bytes_per_s` or `seek_ns`."""
    profile: str | None = None
    """A device profile that `pipeprof devices --measure` saved: the place of this tier is emulated."""
    cache: Literal["cold", "warm"] = "cold"
    """State of the page cache of a real directory at the start: nothing of the data in it, or all."""
    cache_bytes: NonNegativeInt | None = None
    """Bytes of the set that may stay in memory, to reproduce thrashing."""
    keep: Literal["encoded", "decoded"] = "encoded"
    """Form in which `ram` and `pinned` hold the data: the files' bytes or decoded tensors."""


class LoaderPart(_Part):
    """The arguments of torch's DataLoader that the lesson turns."""

    batch_size: PositiveInt = 32
    """Samples in a batch."""
    workers: NonNegativeInt = 4
    """Processes that read and decode; 0 does it in the training loop itself."""
    prefetch: PositiveInt | None = None
    """Batches that each worker holds ready; 2 by default, and only with workers."""
    pin_memory: bool = False
    """Copy finished batches to page-locked memory, from which the accelerator can copy alone."""
    persistent_workers: bool = False
    """Keep the workers from one epoch to the next."""
    in_order: bool = True
    """Deliver batches in the order in which they were asked for, even if a later one is ready first."""
    shuffle: bool = True
    """Read the samples in random order, a new one each epoch."""
    drop_last: bool = True
    """Leave out the last batch of an epoch if it is not full."""
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    """Method by which worker processes start; by default as Python does it here."""


class ModelPart(_Part):
    """The network that is trained, where the accelerator really computes."""

    name: str = "resnet18"
    """`two_layer_net` or any classification model of torchvision."""
    weights: str | None = None
    """A local checkpoint to start from."""
    optimizer: Optimizer = "sgd"
    """The rule that turns gradients into steps."""
    learning_rate: PositiveFloat = 1e-2
    """Step size of the optimizer."""
    classes: PositiveInt = 1000
    """Size of the network's output."""


class AcceleratorPart(_Part):
    """The device that computes. `auto` is torch's accelerator where there is one, else emulated."""

    kind: Literal["auto", "device", "cuda", "rocm", "xpu", "mps", "cpu", "emulated"] = "auto"
    """`device` (the one that torch sees), its name, and `cpu` really train; `emulated` takes the time that a
    step is said to take."""
    preset: str | None = _preset(ACCELERATORS)
    """Preset of the emulated accelerator, scaled by the size of the batch."""
    step_ms: NonNegativeFloat | None = None
    """Step time of the emulated one for one whole batch, in milliseconds."""
    step_spread_ms: NonNegativeFloat = 0.0
    """Standard deviation of `step_ms`, in milliseconds."""
    queue_depth: PositiveInt = 2
    """Number of steps that may be launched and unfinished before the loop has to wait."""
    link: str | None = _preset(LINKS)
    """The emulated way from host memory to the accelerator's; by default the preset's own."""
    sync: bool = False
    """The loop waits for each step, as `.item()` makes it."""
    compile: bool = False
    """Train through `torch.compile`."""
    amp: bool = False
    """Train in mixed precision."""
    channels_last: bool = False
    """Lay images out with the channels last."""
    cudnn: bool = True
    """Let CUDA use cuDNN, and ROCm MIOpen."""
    prefetch_to_device: bool = False
    """Copy the next batch on a side stream while this one computes."""


class RunPart(_Part):
    """Length of the measurement: until the first of the limits named; 20 seconds where none is."""

    steps: PositiveInt | None = None
    """Steps of the training loop, warm-up included."""
    epochs: PositiveInt | None = None
    """Passes over the data."""
    seconds: PositiveFloat | None = None
    """Seconds of wall time."""
    warmup_steps: NonNegativeInt = 5
    """Steps at the start that are recorded and left out of the verdict."""
    seed: NonNegativeInt = 0
    """Seed of the order of the samples and of the network's first weights."""
    telemetry_hz: Annotated[float, Field(ge=0, le=MOST_TELEMETRY_HZ)] = 10.0
    """Times a second that CPU, memory, disks and GPUs are looked at; 0 leaves them unobserved."""

    @model_validator(mode="before")
    @classmethod
    def _ends(cls, given: Any) -> Any:
        limits = ("steps", "epochs", "seconds")
        if isinstance(given, dict) and all(given.get(limit) is None for limit in limits):
            return {**given, "seconds": DEFAULT_SECONDS}
        return given


class Expected(_Part):
    """Expected result of a run. Only what is named is checked."""

    cause: Words = Field(default_factory=list)
    """The verdict's cause, or several that will do."""
    fix: Words = Field(default_factory=list)
    """The verdict's fix, or several that will do."""
    band: BandWord | None = None
    """Band of the stall, by how input-bound the run is: under 5% stall, under 20%, or more."""
    min_stall: Share | None = None
    """Least share of the measured time that the accelerator waited for data, 0 to 1."""
    max_stall: Share | None = None
    """Greatest share of the measured time that the accelerator waited for data, 0 to 1."""


class ExpectedCell(Expected):
    """Expected result of those cells of a matrix in which some keys have some values."""

    when: dict[str, Any]
    """Dotted keys of the matrix to the value that they have in the cells meant."""


class ExpectPart(Expected):
    """Lesson that this scenario teaches, checked after the run.

    It is said of the scenario as written: an override of anything but `run` and `expect` drops it.
    """

    cells: list[ExpectedCell] = Field(default_factory=list)
    """More of it for some cells of the matrix; where two name the same thing, the later one holds."""


class Scenario(_Part):
    """Scenario: the full description of a run."""

    name: str = "scenario"
    """Name of the run's directory; by default the name of the file."""
    about: str = ""
    """Lesson of the scenario, in one or two sentences."""
    data: DataPart = DataPart()
    storage: StoragePart = StoragePart()
    loader: LoaderPart = LoaderPart()
    model: ModelPart = ModelPart()
    accelerator: AcceleratorPart = AcceleratorPart()
    run: RunPart = RunPart()
    expect: ExpectPart | None = None
    matrix: dict[str, list[Any]] = Field(default_factory=dict)
    """Dotted keys to lists of values; expands to one run a cell. Empty once expanded."""
    cell: SkipJsonSchema[dict[str, Any]] = Field(default_factory=dict)
    """The values that this cell of a matrix has, by dotted key. Set by the expansion, never written."""

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, as JSON; `Scenario.model_validate` reads it back."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scenario.model_json_schema(by_alias=True),
        "title": "pipeprof scenario",
    }
