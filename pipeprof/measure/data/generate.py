"""Makes the data sets that scenarios name, once, and keeps them in the user's cache directory.

A set is made in a hidden neighbour of its final directory and renamed when it is whole, under a lock that the
kernel drops with its holder: a killed generation is never taken for a set, and of two processes that want the
same set the second waits for the first.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeprof import units
from pipeprof.errors import DataError
from pipeprof.measure.data.synthetic import ImageRecipe, TensorRecipe, image_recipe, tensor_recipe
from pipeprof.measure.probe.shared_memory import flocked
from pipeprof.measure.progress import progress, say
from pipeprof.scenario import DataPart, Scenario
from pipeprof.scenario.synthetic_limits import CLASSES, shard_samples

VERSION: Final = 3
"""Version of the samples' content: a change in how they are made makes a new set."""
SET_JSON: Final = "set.json"
SUFFIXES: Final = {"jpeg_folder": (".jpg",), "tensor_files": (".npy",), "tar_shards": (".tar",)}
"""Suffixes of the files of each generated format."""
_BLOCK: Final = 4096
"""Files occupy whole blocks."""

_LESS_OR_ELSEWHERE: Final = (
    "ask for fewer or smaller samples, or set storage.path, or else PIPEPROF_CACHE, to a place with more room"
)

Recipe = ImageRecipe | TensorRecipe


def cache_root(scenario: Scenario) -> Path:
    """Return where generated data sets are kept: on the scenario's storage, else in the user's cache."""
    if scenario.storage.path:
        return Path(scenario.storage.path).expanduser() / "pipeprof-data"
    return users_cache()


def users_cache() -> Path:
    """Return where generated data sets are kept for this user."""
    if own := os.getenv("PIPEPROF_CACHE"):
        return Path(own).expanduser() / "data"
    base = os.getenv("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pipeprof" / "data"


def made_set(scenario: Scenario) -> Path:
    """Return the directory of the scenario's set, made now if it was not there.

    Raises `DataError` if there is no room for it or it cannot be written.
    """
    root = cache_root(scenario)
    final = root / set_name(scenario)
    if (final / SET_JSON).exists():
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{final.name}.lock"):
            if not (final / SET_JSON).exists():
                _make(scenario, final)
    except OSError as error:
        raise _translated(error, root) from error
    return final


def set_facts(directory: Path) -> dict[str, Any]:
    """Read what was recorded of a made set: format, samples, seed, mean_bytes, files, file_bytes."""
    try:
        facts: dict[str, Any] = json.loads((directory / SET_JSON).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory} is damaged: {error}", "delete it; it will be made again") from error
    return facts


def set_name(scenario: Scenario) -> str:
    """Name the set by all that its content depends on."""
    data = scenario.data
    size = f"{data.sample_bytes}B" if data.sample_bytes else "default"
    if data.format == "tensor_files" and not data.sample_bytes:
        size = f"crop{data.crop}"
    return f"{data.format}-{data.samples}-{size}-seed{data.seed}-v{VERSION}"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with flocked(fd, lambda: say("another process is making this data set; waiting for it")):
            yield
    finally:
        os.close(fd)


def _make(scenario: Scenario, final: Path) -> None:
    """Make the set beside `final` and give it its name. The caller holds the lock: leftovers are dead."""
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    data = scenario.data
    _check_room(final.parent, data.samples, data.sample_bytes or 0)  # before one is made in memory
    recipe: Recipe = (
        tensor_recipe(data.seed, data.sample_bytes, data.crop)
        if data.format == "tensor_files"
        else image_recipe(data.seed, data.sample_bytes)
    )
    _check_room(final.parent, data.samples, len(recipe.encode(0)))
    write = _write_shards if data.format == "tar_shards" else _write_files
    try:
        partial.mkdir()
        with progress(f"making {data.format}", data.samples) as done:
            size_bytes = write(partial, _samples(data, recipe, done), data)
        sizes = [path.stat().st_size for path in partial.rglob("*") if path.is_file()]
        facts = {
            "format": data.format,
            "samples": data.samples,
            "seed": data.seed,
            "mean_bytes": size_bytes / data.samples,
            "files": len(sizes),
            "file_bytes": sum(sizes),
        }
        (partial / SET_JSON).write_text(json.dumps(facts))
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _samples(data: DataPart, recipe: Recipe, done: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the encoded samples in order."""
    for index in range(data.samples):
        yield recipe.encode(index)
        done(index + 1)


def _write_files(directory: Path, samples: Iterator[bytes], data: DataPart) -> int:
    """Write a file for each sample, in ImageFolder's layout; return their bytes."""
    suffix, size_bytes = SUFFIXES[data.format][0], 0
    for label in range(min(CLASSES, data.samples)):
        (directory / f"class_{label}").mkdir()
    for index, sample in enumerate(samples):
        path = directory / f"class_{index % CLASSES}" / f"{index:08d}{suffix}"
        size_bytes += path.write_bytes(sample)
    return size_bytes


def _write_shards(directory: Path, samples: Iterator[bytes], data: DataPart) -> int:
    """Write WebDataset's layout: a `.jpg` and a `.cls` for each sample of a tar; return the images' bytes."""
    size_bytes, per_shard = 0, shard_samples(data.samples)
    for first in range(0, data.samples, per_shard):
        with tarfile.open(directory / f"shard-{first // per_shard:06d}.tar", "w") as tar:
            last = min(first + per_shard, data.samples)
            for index, sample in zip(range(first, last), samples, strict=False):
                _add(tar, f"{index:08d}.jpg", sample)
                _add(tar, f"{index:08d}.cls", str(index % CLASSES).encode())
                size_bytes += len(sample)
    return size_bytes


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _check_room(directory: Path, samples: int, sample_bytes: int) -> None:
    needed = samples * -(-sample_bytes // _BLOCK) * _BLOCK
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{samples} samples need {units.size(needed)}, and {directory} has {units.size(free)} free",
            _LESS_OR_ELSEWHERE,
        )


def _translated(error: OSError, root: Path) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = units.size(shutil.disk_usage(root).free)
        return DataError(
            f"no room left in {root} while the data set was made ({free} free now)",
            _LESS_OR_ELSEWHERE,
        )
    return DataError(
        f"cannot keep a data set in {root}: {error.strerror}",
        "set storage.path, or else PIPEPROF_CACHE, to a directory that you may write",
    )
