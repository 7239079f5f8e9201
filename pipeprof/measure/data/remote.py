"""Data sets in remote places: the files listed there, and generated sets uploaded once.

A set is made in this machine's cache as any other, and copied; its description goes last, so that a copy
that was broken off is not taken for a set and is made whole by the next run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.errors import DataError, MeasureError
from pipeprof.measure.data.files import FileTable, spread
from pipeprof.measure.data.generate import SET_JSON, SUFFIXES, made_set, set_name
from pipeprof.measure.progress import progress
from pipeprof.measure.storage.remote import RemoteStorage, url_of
from pipeprof.measure.storage.remote_errors import no_bucket, refused
from pipeprof.scenario import Scenario, StoragePart

_AT_ONCE: Final = 64
"""Files that are sent before the progress is shown."""
_READ_ONLY: Final = ("http", "https")


class RemoteFiles(FileTable):
    """Files below a URL, with their sizes as the place lists them."""

    def __init__(self, root: Path, names: list[bytes], sizes: list[int | None]) -> None:
        super().__init__(root, names)
        self.sizes: npt.NDArray[np.float64] = np.array(sizes, dtype=np.float64)
        """In bytes; NaN if the place does not list them."""

    @property
    def total_bytes(self) -> float | None:
        """Return the size of all files together, None if it is not known."""
        return None if np.isnan(self.sizes).any() else float(self.sizes.sum())


def remote_files(scenario: Scenario, storage: RemoteStorage, suffixes: Iterable[str]) -> RemoteFiles:
    """List the files of the scenario's data set; a generated set is made and uploaded now.

    Raises `DataError` if there are none, and `MeasureError` if the place cannot be used.
    """
    data = scenario.data
    if data.format not in SUFFIXES:
        return _listed(storage, (data.path or storage.url).rstrip("/"), tuple(suffixes), data.samples)
    root = remote_set(scenario)
    facts = _facts(storage, root)
    if facts is None:
        _put(scenario, storage, root)
        facts = remote_facts(storage, root)
    files = _listed(storage, root, tuple(suffixes), None)
    size = files.total_bytes
    if len(files) != facts["files"] or size not in (None, facts["file_bytes"]):
        raise DataError(
            f"{root} is damaged: {facts['files']} files were put there, {len(files)} are there or their "
            "sizes differ",
            "delete it; it will be made again",
        )
    return files


def remote_set(scenario: Scenario) -> str:
    """Return the URL of the scenario's generated data set."""
    return f"{str(scenario.storage.path).rstrip('/')}/pipeprof-data/{set_name(scenario)}"


def remote_facts(storage: RemoteStorage, root: str) -> dict[str, Any]:
    """Read the description of a generated data set. Raises `DataError` if it is missing."""
    facts = _facts(storage, root)
    if facts is None:
        raise DataError(f"{root} is not there any more", "run again; it will be made again")
    return facts


def _facts(storage: RemoteStorage, root: str) -> dict[str, Any] | None:
    with refused(storage.url):
        try:
            text = storage.client.cat_file(storage.key(f"{root}/{SET_JSON}"))
        except FileNotFoundError as error:
            if no_bucket(error):
                raise
            return None
    try:
        facts: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise DataError(f"{root}/{SET_JSON} is damaged", "delete it; it will be made again") from error
    return facts


def _put(scenario: Scenario, storage: RemoteStorage, root: str) -> None:
    """Copy the set from this machine's cache, its description last."""
    if root.partition("://")[0] in _READ_ONLY:
        raise MeasureError(
            f"{root} is not there, and a web server takes no data",
            "let it serve a set that pipeprof made in a directory (storage.path), or name your own images "
            "with data.format: image_folder",
        )
    local = made_set(scenario.model_copy(update={"storage": StoragePart()}))
    names = sorted(str(path.relative_to(local)) for path in local.rglob("*") if path.is_file())
    names.remove(SET_JSON)
    with refused(storage.url), progress(f"putting {scenario.data.format} to {root}", len(names)) as done:
        client, there = storage.client, storage.key(root)
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            client.put([str(local / name) for name in some], [f"{there}/{name}" for name in some])
            done(first + len(some))
        client.put_file(str(local / SET_JSON), f"{there}/{SET_JSON}")


def _listed(storage: RemoteStorage, root: str, suffixes: tuple[str, ...], limit: int | None) -> RemoteFiles:
    with refused(storage.url):
        try:
            listed = storage.client.find(storage.key(root), detail=True)
        except FileNotFoundError as error:
            if no_bucket(error):
                raise
            listed = {}
    start = len(storage.key(root).rstrip("/")) + 1
    sizes = {
        os.fsencode(name[start:]): entry.get("size") for name, entry in listed.items() if len(name) > start
    }
    names = [
        name
        for name in sorted(sizes, key=lambda name: name.split(b"/"))
        if os.fsdecode(name).lower().endswith(suffixes) and b"/." not in b"/" + name
    ]
    if not names:
        raise DataError(
            f"{url_of(root)} holds no file that ends in {', '.join(suffixes)}",
            "check the bucket and the prefix",
        )
    if limit is not None:
        names = [names[i] for i in spread(len(names), limit)]
    return RemoteFiles(Path(root), names, [sizes[name] for name in names])
