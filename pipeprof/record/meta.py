"""Model of `run.json`: what a run says about itself outside its tables.

`run.json` is written and read as a `RunMeta`, and no code reads it by key, so that mypy sees each name on
both sides. What an older run lacks, and what does not fit its type or its limits, is None: not observed. Keys
that this version does not know are skipped. A field may be added at any time; one whose meaning changes makes
a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pipeprof.devices import LinkModel, StorageModel
from pipeprof.errors import TraceError
from pipeprof.record.decode import Between, decode, encode
from pipeprof.record.schema import SCHEMA_VERSION, Status

MOST_CORES: Final = 8_192
"""Largest number of cores that a Linux kernel can be built for (NR_CPUS)."""
MOST_WORKERS: Final = 1_024
MOST_BATCHES_AHEAD: Final = 1_024
"""Largest prefetch factor, and longest queue of an accelerator."""
MOST_RANKS: Final = 1 << 20
MOST_SAMPLES: Final = 10**15
MOST_BATCH_SIZE: Final = 10**7
MOST_LOADERS: Final = 1 << 15
"""Number of loaders at most: a loader's number is an int16 in the tables."""
_MOST: Final = 2**63 - 1

Cores = Annotated[float, Between(0, MOST_CORES)]
Workers = Annotated[int, Between(0, MOST_WORKERS)]
BatchesAhead = Annotated[int, Between(1, MOST_BATCHES_AHEAD)]
Samples = Annotated[int, Between(0, MOST_SAMPLES)]
BatchSize = Annotated[int, Between(1, MOST_BATCH_SIZE)]
RankNumber = Annotated[int, Between(0, MOST_RANKS)]
Ranks = Annotated[int, Between(1, MOST_RANKS)]
ProcessId = Annotated[int, Between(1, 2**31 - 1)]
Count = Annotated[int, Between(0, _MOST)]
Amount = Annotated[float, Between(0, _MOST)]
"""Amount of bytes, nanoseconds, seconds or hertz."""
Share = Annotated[float, Between(0, 1)]


class Part:
    """A part of `run.json`."""

    __slots__ = ()

    @property
    def known(self) -> bool:
        """Return True if the run recorded any of it."""
        return self != type(self)()


@dataclass(frozen=True, slots=True)
class ChangedMeta:
    """Argument that was set from outside for a script's loader, replacing the script's own."""

    argument: str
    script: str | None = None
    """Value that the script gave, as text."""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class OperatorMeta:
    """An operator of a source that keeps statistics of its own, as Ray Data does: all its tasks together."""

    name: str = ""
    wall_ns: Count | None = None
    cpu_ns: Count | None = None
    rows: Samples | None = None
    tasks: Count | None = None


@dataclass(frozen=True, slots=True)
class LoaderMeta:
    """A DataLoader, or the object that was iterated in its place (`kind` is then "iterable")."""

    id: Annotated[int, Between(0, MOST_LOADERS)]
    """Its number in the tables."""
    name: str = ""
    kind: str | None = None
    batch_size: BatchSize | None = None
    workers: Workers | None = None
    prefetch: BatchesAhead | None = None
    in_order: bool | None = None
    pin_memory: bool | None = None
    persistent_workers: bool | None = None
    start_method: str | None = None
    dataset: str | None = None
    iterable: bool | None = None
    sets_epoch: bool | None = None
    """True if the data set has a `set_epoch`, which the loop calls before each epoch."""
    splits_stream: bool | None = None
    """True if an iterable data set's code looks for the worker that it runs in; None: not known."""
    samples: Samples | None = None
    file: str | None = None
    """Source file of the call that made it, if a script was traced."""
    line: Count | None = None
    column: Count | None = None
    in_library: bool | None = None
    """True if a library made it, and not the user's code."""
    changed: tuple[ChangedMeta, ...] = ()
    """Arguments that were set from outside."""
    operators: tuple[OperatorMeta, ...] = ()
    """Operators of the source's own statistics, along the way of the data; empty: not observed."""


@dataclass(frozen=True, slots=True)
class AcceleratorMeta(Part):
    """The device that computed, or the model of an emulated one."""

    kind: str | None = None
    """`cuda`, `rocm`, `xpu`, `mps` or another of torch's devices; `cpu`, `emulated`; or `none` if the run saw
    no device."""
    name: str | None = None
    emulated: bool | None = None
    queue_depth: BatchesAhead | None = None
    synchronises: bool | None = None
    copies_overlap: bool | None = None
    step_ns: Count | None = None
    step_stddev_ns: Count | None = None
    step_batch_size: BatchSize | None = None
    pinned: bool | None = None
    link: LinkModel | None = None
    source: str | None = None
    threads: Count | None = None
    device: Count | None = None
    uuid: str | None = None
    memory_bytes: Count | None = None
    cuda: str | None = None
    hip: str | None = None

    @property
    def device_of_torch(self) -> bool:
        """Return True if it is a real device with memory and queues of its own."""
        return self.kind not in (None, "none", "cpu", "emulated")

    @property
    def is_missing(self) -> bool:
        """Return True if the loop has no processor but the CPU, as far as the run knows."""
        return self.kind in (None, "none", "cpu")


@dataclass(frozen=True, slots=True)
class EmulatorMeta(Part):
    """The requests that an emulated storage device served, in all processes."""

    requests: Count | None = None
    served_ns: Count | None = None
    lost_ns: Count | None = None
    """Time by which the emulation was slower than its model."""
    limited_by_emulator: bool | None = None


@dataclass(frozen=True, slots=True)
class EmulatedCacheMeta(Part):
    """The emulated page cache, in bytes."""

    limit_bytes: Count | None = None
    bytes_from_memory: Count | None = None
    bytes_from_device: Count | None = None


@dataclass(frozen=True, slots=True)
class DiskMeta:
    """A block device as the kernel describes it."""

    name: str | None = None
    number: str | None = None
    """`major:minor` of the whole disk, which is what I/O limits name."""
    model: str | None = None
    rotational: bool | None = None
    virtual: bool | None = None
    scheduler: str | None = None
    queue_requests: Count | None = None
    read_ahead_kb: Count | None = None
    size_bytes: Count | None = None
    through: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceMeta(Part):
    """The file system and the disks that a directory is on."""

    path: str | None = None
    mount: str | None = None
    filesystem: str | None = None
    source: str | None = None
    network: bool | None = None
    memory: bool | None = None
    disks: tuple[DiskMeta, ...] = ()
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class IoLimitMeta:
    """A limit that a cgroup sets on reads from one device."""

    device: str | None = None
    group: str | None = None
    read_bytes_per_s: Count | None = None
    read_requests_per_s: Count | None = None


@dataclass(frozen=True, slots=True)
class StorageMeta(Part):
    """Storage of the data: a real directory, a remote place, memory, or an emulated device."""

    tier: str | None = None
    name: str | None = None
    emulated: bool | None = None
    remote: bool | None = None
    path: str | None = None
    cache: str | None = None
    """State of the page cache that the scenario asks for: `cold`, `warm`."""
    cache_bytes: Count | None = None
    model: StorageModel | None = None
    emulator: EmulatorMeta = field(default_factory=EmulatorMeta)
    emulated_cache: EmulatedCacheMeta = field(default_factory=EmulatedCacheMeta)
    ranks: Ranks | None = None
    client: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    block_bytes: Count | None = None
    device: PlaceMeta = field(default_factory=PlaceMeta)
    io_limits: tuple[IoLimitMeta, ...] = ()
    files: Count | None = None
    bytes_expected: Count | None = None
    resident_before: Count | None = None
    """Bytes of the run's files that were in the page cache when it began."""
    resident_share_before: Share | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadFileMeta:
    """A file that batches were made from, by its absolute path, or its URL."""

    path: str = ""
    size_bytes: Count | None = None
    how: str | None = None
    """`read`: opened by Python's `open`; `mapped` into a worker's memory; `held` open by one; `url`: read
    through fsspec, with the bytes of one read as its size."""


@dataclass(frozen=True, slots=True)
class SlowFileMeta:
    """The file of one of the slowest samples, if the data set keeps a list of its files."""

    loader: Annotated[int, Between(0, MOST_LOADERS)] = 0
    sample: Count = 0
    """Index in the data set."""
    took_ns: Count | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class ReadingMeta(Part):
    """Facts by which reads can be repeated, and what limits them: see `measure.host.storage_probe`."""

    io_limits: tuple[IoLimitMeta, ...] = ()
    files: tuple[ReadFileMeta, ...] = ()
    """Some of the files; a sample, and bounded."""
    slowest: tuple[SlowFileMeta, ...] = ()
    """Files of the slowest samples, the slowest first; bounded."""
    place: PlaceMeta = field(default_factory=PlaceMeta)
    """The file system and the disks that the first of them is on."""


@dataclass(frozen=True, slots=True)
class MachineMeta(Part):
    """The machine, and how much of it the run might use."""

    cpu_count: Annotated[int, Between(1, MOST_CORES)] | None = None
    usable_cores: Cores | None = None
    """Cores that the run might use, by affinity and quota."""
    cpu_quota_cores: Cores | None = None
    memory_bytes: Count | None = None
    fresh_byte_ns: Amount | None = None
    """CPU ns that a byte of fresh shared memory costs beyond being written."""
    private_byte_ns: Amount | None = None
    """The same of fresh memory of one process."""
    released_byte_ns: Amount | None = None
    """CPU ns that giving a byte of shared memory back costs the last process that has it."""
    cpu_name: str | None = None
    gpu_names: tuple[str, ...] | None = None
    kernel: str | None = None
    python: str | None = None
    platform: str | None = None
    programs: Mapping[str, Amount] = field(default_factory=dict)
    """Cores that the busiest other programs kept busy while the run was measured, by name."""


@dataclass(frozen=True, slots=True)
class DataMeta(Part):
    """The data set of a scenario."""

    format: str | None = None
    import_: str | None = None
    path: str | None = None
    samples: Samples | None = None
    mean_bytes: Amount | None = None
    mean_decode_ns: Amount | None = None
    """CPU time of decoding a sample on this machine."""


@dataclass(frozen=True, slots=True)
class ModelMeta(Part):
    """The network that a real accelerator trained."""

    name: str | None = None
    parameters: Count | None = None
    weights: str | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    compile: bool | None = None
    amp: bool | None = None
    channels_last: bool | None = None
    cudnn: bool | None = None


@dataclass(frozen=True, slots=True)
class SeedsMeta(Part):
    """The seeds of a scenario."""

    run: int | None = None
    data: int | None = None


@dataclass(frozen=True, slots=True)
class OverheadMeta(Part):
    """The profiler's own cost, measured at the start of the run; the writing, during all of it."""

    span_ns: Amount | None = None
    batch_ns: Amount | None = None
    counters_every: Count | None = None
    handover_ns: Amount | None = None
    """Time that pickling and unpickling a batch of workers takes longer, as its pickle carries times."""
    flush_ns: Amount | None = None
    """CPU time a step of the thread that looks at the workers and writes."""
    lines_ns: Amount | None = None
    """CPU time a step of sampling lines, in all processes; None if they were not sampled."""


@dataclass(frozen=True, slots=True)
class TelemetryMeta(Part):
    """The sampling of sensors."""

    rate_hz: Amount | None = None
    cpu_ns: Count | None = None
    process_cpu_tick_s: Amount | None = None
    nvml_sample_period_s: Amount | None = None
    gpu_uuids: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClockMeta(Part):
    """Instant on the tables' clock and on the wall's."""

    monotonic_ns: Count | None = None
    unix_ns: Count | None = None


@dataclass(frozen=True, slots=True)
class JobMeta(Part):
    """Facts that all ranks of a job know and no other job does."""

    run_id: str | None = None
    master: str | None = None
    world_size: Ranks | None = None
    scheduled: str | None = None


@dataclass(frozen=True, slots=True)
class ChosenRanks(Part):
    """Ranks of a job that were chosen to be observed; all if neither is given."""

    ranks: tuple[RankNumber, ...] = ()
    every: Annotated[int, Between(1, MOST_RANKS)] | None = None
    """The first rank, and each that many after it."""

    def holds(self, rank: int) -> bool:
        """Return True if `rank` is to be observed."""
        return rank % self.every == 0 if self.every else not self.ranks or rank in self.ranks

    @property
    def first(self) -> int:
        """Return the first rank that is observed."""
        return min(self.ranks, default=0)

    @property
    def text(self) -> str:
        """Return the choice as it is written in the environment and shown."""
        return f"every {self.every}" if self.every else ",".join(map(str, self.ranks)) or "all"


@dataclass(frozen=True, slots=True)
class LoaderSettings(Part):
    """The loader that a scenario asks for."""

    batch_size: BatchSize | None = None
    workers: Workers | None = None
    prefetch: BatchesAhead | None = None
    drop_last: bool | None = None


@dataclass(frozen=True, slots=True)
class StorageSettings(Part):
    """The storage that a scenario asks for."""

    tier: str | None = None
    keep: str | None = None
    cache_bytes: Count | None = None


@dataclass(frozen=True, slots=True)
class RunSettings(Part):
    """The length of a run that a scenario asks for."""

    epochs: Count | None = None
    seconds: Amount | None = None


@dataclass(frozen=True, slots=True)
class Settings(Part):
    """Settings of a scenario that other rooms read by name."""

    loader: LoaderSettings = field(default_factory=LoaderSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    run: RunSettings = field(default_factory=RunSettings)
    cell: Mapping[str, Any] = field(default_factory=dict)
    """The values of its matrix that this run has, by dotted key; empty outside a matrix."""


@dataclass(frozen=True, slots=True)
class ScenarioMeta(Part):
    """The scenario that was run."""

    path: str | None = None
    text: str | None = None
    """The file as it was written."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """All settings, as `Scenario.resolved` gives them: to show, to compare, to run again."""

    @property
    def settings(self) -> Settings:
        """Return the settings that are read by name; empty if the run had no scenario."""
        return decode(Settings, self.resolved)


@dataclass(frozen=True, slots=True)
class RunMeta(Part):
    """All of `run.json`."""

    schema: int = SCHEMA_VERSION
    status: Status = "running"
    pid: ProcessId | None = None
    kind: str = ""
    """Kind of the run: `bench`, `wrapper` or `trace`."""
    name: str = ""
    created_at: str | None = None
    """Time of creation in ISO 8601, with the offset from UTC."""
    command: tuple[str, ...] = ()
    script_words: Count | None = None
    """Words at the end of the command that are a traced script, or its module, and its arguments."""
    tried: tuple[str, ...] = ()
    """Fixes that were tried on a traced script without an edit, and what each did."""
    stopped: str | None = None
    """When pipeprof ended the script's loops, as it was asked to: `after 50 steps`."""
    clock: ClockMeta = field(default_factory=ClockMeta)
    scenario: ScenarioMeta = field(default_factory=ScenarioMeta)
    loaders: tuple[LoaderMeta, ...] = ()
    accelerator: AcceleratorMeta = field(default_factory=AcceleratorMeta)
    storage: StorageMeta = field(default_factory=StorageMeta)
    machine: MachineMeta = field(default_factory=MachineMeta)
    packages: Mapping[str, str] = field(default_factory=dict)
    emulated: tuple[str, ...] = ()
    not_observed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overhead: OverheadMeta = field(default_factory=OverheadMeta)
    warmup_steps: Count | None = None
    data: DataMeta = field(default_factory=DataMeta)
    model: ModelMeta = field(default_factory=ModelMeta)
    seeds: SeedsMeta = field(default_factory=SeedsMeta)
    reading: ReadingMeta = field(default_factory=ReadingMeta)
    telemetry: TelemetryMeta = field(default_factory=TelemetryMeta)
    error: str | None = None
    signal: str | None = None
    """Name of the signal that ended the run, such as SIGTERM."""
    unrecorded: str | None = None
    """Reason why the record ends before the run: a full disk, for one."""
    host: str | None = None
    boot_id: str | None = None
    """Identity of the machine's boot."""
    # Of a job of several ranks; None in a run of one process.
    rank: RankNumber | None = None
    world_size: Ranks | None = None
    local_rank: RankNumber | None = None
    local_world_size: Ranks | None = None
    """Ranks of the job on this node; None if the launcher does not say."""
    node: RankNumber | None = None
    restart: Count | None = None
    """Times that the launcher has begun the job again."""
    own_cores: bool | None = None
    """True if the rank was bound to some of the cores that its launcher may use."""
    chosen: ChosenRanks = field(default_factory=ChosenRanks)
    job: JobMeta = field(default_factory=JobMeta)

    @property
    def settings(self) -> Settings:
        """Return the scenario's settings that are read by name; empty if the run had no scenario."""
        return self.scenario.settings

    @property
    def own_words(self) -> tuple[str, ...]:
        """Return the words of the command that are pipeprof's: all but a traced script and its arguments."""
        return self.command[: len(self.command) - (self.script_words or 0)]

    @property
    def program(self) -> tuple[str, ...]:
        """Return what was measured: the script with its arguments, or the scenario's file."""
        path = self.scenario.path
        return self.command[len(self.own_words) :] or ((path,) if path else ())

    def loader(self, number: int) -> LoaderMeta:
        """Return the loader of that number; one of which nothing is known if `run.json` has none."""
        return next((each for each in self.loaders if each.id == number), LoaderMeta(number))

    def as_json(self) -> dict[str, Any]:
        """Return the object that `run.json` holds."""
        return encode(self)

    def as_text(self) -> str:
        """Return the text of `run.json`."""
        return self.text_of(self.as_json())

    @staticmethod
    def text_of(facts: Any) -> str:
        """Return the text for an object that `as_json` has given."""
        return json.dumps(facts, indent=1, default=_as_plain)

    @classmethod
    def from_json(cls, text: str, path: Path) -> RunMeta:
        """Read the text of a `run.json`, which lies at `path`.

        Raises `TraceError` if it is not one, or is of a newer schema.
        """
        try:
            # NaN and infinities, which JSON does not have and Python writes, are not observations.
            raw = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path} cannot be read: {error}") from error
        version = raw.get("schema") if isinstance(raw, dict) else None
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise TraceError(f"{path} is not a run of pipeprof")
        if version > SCHEMA_VERSION:
            raise TraceError(
                f"{path.parent} was written by a newer pipeprof (schema {version})",
                f"upgrade pipeprof: this one reads schema {SCHEMA_VERSION}",
            )
        return decode(cls, raw)


def _as_plain(value: Any) -> object:
    """Return a NumPy number, such as a `batch_size` may be, as a Python one; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
