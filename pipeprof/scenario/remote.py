"""Remote places in scenarios: `s3://bucket/prefix` and every other URL that fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pipeprof.redact import holds_credential
from pipeprof.scenario.credentials import in_options, where_instead
from pipeprof.scenario.schema import Scenario

_FILE: Final = "file://"
_NEAR: Final = ("hdd", "ssd", "nvme")


def is_remote(place: str | None) -> bool:
    """Return whether `place` is a URL and not a path of this machine."""
    return place is not None and "://" in place


def settle_places(values: dict[str, Any]) -> None:
    """Write out what a scenario's URLs imply: `file://` is a path, a remote place is of the tier network.

    Images of one's own that lie in a remote place say with it where the storage is.
    """
    data, storage = _entry(values, "data"), _entry(values, "storage")
    for part in (data, storage):
        if str(_entry(part, "path")).startswith(_FILE):
            part["path"] = unquote(urlsplit(part["path"]).path)
    own = _entry(data, "path")
    if isinstance(own, str) and is_remote(own) and (storage is None or isinstance(storage, dict)):
        storage = values.setdefault("storage", {})
        if _entry(storage, "path") is None:
            storage["path"] = own
    place = _entry(storage, "path")
    if isinstance(place, str) and is_remote(place):
        storage.setdefault("tier", "network")


def _entry(part: Any, key: str) -> Any:
    """Return an entry of a section as it was written; None if there is none, or the section is not a map."""
    return part.get(key) if isinstance(part, dict) else None


def remote_problems(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    """Yield key, problem and remedy of what cannot be meant of a remote place."""
    storage = scenario.storage
    for key, place in (("data.path", scenario.data.path), ("storage.path", storage.path)):
        if place is not None and is_remote(place):
            yield from _url(key, place)
    if not is_remote(storage.path):
        if storage.options:
            yield (
                "storage.options",
                "are for a remote storage.path",
                "leave them out, or name s3://bucket/prefix",
            )
        if is_remote(scenario.data.path):
            yield (
                "data.path",
                "is remote, and storage.path is not",
                "leave storage.path out, or copy the data to it",
            )
        return
    yield from _storage(scenario)


def _url(key: str, place: str) -> Iterator[tuple[str, str, str]]:
    if holds_credential(place.rpartition("::")[2]):
        yield key, "holds credentials, and a run keeps its scenario", f"give them {where_instead(place)}"
    elif "::" in place:
        yield key, f"{place} is a chain", "name the place itself: what caches it hides what is to be measured"


def _storage(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    storage, loader = scenario.storage, scenario.loader
    if storage.tier in _NEAR:
        yield (
            "storage.tier",
            f"is {storage.tier}, and {storage.path} is remote",
            "say network, or leave it out",
        )
    if storage.cache == "warm" or storage.cache_bytes is not None:
        key = "cache" if storage.cache == "warm" else "cache_bytes"
        yield f"storage.{key}", "no page cache holds the data of a remote storage.path", "leave it out"
    for name in in_options(storage.options, "storage.options"):
        yield (
            name,
            "is a credential, and a run keeps its scenario",
            f"give it {where_instead(str(storage.path))}",
        )
    if (
        str(storage.path).startswith("memory://")
        and loader.workers
        and loader.start_method not in (None, "fork")
    ):
        yield (
            "storage.path",
            f"memory:// is one process's own, and workers that {loader.start_method} do not see it",
            "use loader.start_method: fork, or storage.tier: ram",
        )
