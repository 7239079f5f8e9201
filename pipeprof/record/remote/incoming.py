"""The reading of records at a URL: their small files at once, each table when it is asked for.

A local directory stands for the URL, with the runs in the same places below it. A table of up to
`WHOLE_BYTES` is fetched whole, in one request; of a larger one the columns that are asked for. A stream is
joined from its pieces, those that came since being appended.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from pipeprof.errors import TraceError
from pipeprof.record.files import write_atomically
from pipeprof.record.plain_files import read_text
from pipeprof.record.remote.places import filesystem, local_of, reached
from pipeprof.record.schema import RUN_JSON, STREAM_SUFFIX, TABLES
from pipeprof.redact import redact

REMOTE: Final = ".remote.json"
"""File that names the tables at the URL which its directory stands for."""
WHOLE_BYTES: Final = 4 << 20
"""Size up to which a table is fetched whole: a request more costs as much as these bytes."""
BLOCK_BYTES: Final = 256 << 10
"""Least that a read of a part of a larger table asks for."""
RECENT_S: Final = 120.0
"""Time since the newest object came within which a run of another machine is taken to go on."""
MOST_JSON_BYTES: Final = 64 << 20


@dataclass(slots=True)
class _Listing:
    """Tables of one run at a URL."""

    url: str
    newest_s: float = 0.0
    """Time at which its newest object came, in seconds since 1970; 0 if the place does not say."""
    tables: dict[str, list[Any]] = field(default_factory=dict)
    """By name: path, size and version of its Parquet file."""
    pieces: dict[str, list[list[Any]]] = field(default_factory=dict)
    """By name: begin and path of each piece of its stream, in order, and the size of the last."""
    small: dict[str, str] = field(default_factory=dict)
    """Versions of the small files that lie here."""


@dataclass(frozen=True, slots=True)
class RemoteTable:
    """A table at a URL that is too large to be fetched for some of its columns."""

    url: str
    path: str
    size: int

    def open(self) -> BinaryIO:
        """Open it for reading parts of it."""
        fs, _ = filesystem(self.url)
        file: BinaryIO = fs.open(
            self.path, "rb", block_size=BLOCK_BYTES, cache_type="readahead", size=self.size
        )
        return file

    def __str__(self) -> str:
        return redact(f"{self.url}: {self.path.rpartition('/')[2]}")


def mirror(url: str) -> Path:
    """Return the local directory that stands for `url`, with what lies there now.

    Raises `TraceError` if there is no record, or it cannot be reached.
    """
    fs, base = filesystem(url)
    root = local_of("incoming", url)
    with reached(url):
        fs.invalidate_cache()
        objects: dict[str, dict[str, Any]] = fs.find(base, detail=True)
    by_run = _by_directory(objects, base)
    if not by_run:
        raise TraceError(f"there is no run at {redact(url)}", "give the URL that --out was given")
    _remove_gone(root, by_run)
    known = {below: _read_listing(root / below) for below in by_run}
    wanted = {}
    for below, files in by_run.items():
        for name, info in files.items():
            if _is_small(name, info) and known[below].small.get(name) != _version(info):
                wanted[str(info["name"])] = root / below / name
    with reached(url):
        fetched = fs.cat(list(wanted)) if wanted else {}
    for path, content in fetched.items():
        target = wanted.get(path) or wanted["/" + path.lstrip("/")]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content.decode("utf-8", "replace"))
    for below, files in by_run.items():
        listing = _listing(f"{url.rstrip('/')}/{below}".removesuffix("/."), files)
        _update(root / below, known[below], listing)
    return root


def refresh(directory: Path) -> None:
    """Bring a directory that stands for a run at a URL up to date, its streams too; nothing for any other."""
    if not (directory / REMOTE).exists():
        return
    url = _read_listing(directory).url
    fs, base = filesystem(url)
    with reached(url):
        fs.invalidate_cache()
        files = _by_directory(fs.find(base, detail=True), base).get(".", {})
        small = [str(info["name"]) for name, info in files.items() if _is_small(name, info)]
        contents = fs.cat(small) if small else {}
    for path, content in contents.items():
        write_atomically(directory / path.rpartition("/")[2], content.decode("utf-8", "replace"))
    _update(directory, _read_listing(directory), _listing(url, files))
    for name in _read_listing(directory).pieces:
        table(directory, name)


def table(directory: Path, name: str) -> Path | RemoteTable | None:
    """Return a table of a run at a URL: its local file, fetched if need be, or itself if it is large.

    None if the run has none, or is not at a URL. Raises `TraceError` if it cannot be reached.
    """
    if not (directory / REMOTE).exists():
        return None
    listing = _read_listing(directory)
    if name in listing.tables:
        path, size, _ = listing.tables[name]
        local = directory / f"{name}.parquet"
        if local.exists():
            return local
        if size > WHOLE_BYTES:
            return RemoteTable(listing.url, path, size)
        with reached(listing.url):
            fs, _ = filesystem(listing.url)
            return _written(local, fs.cat_file(path))
    if name in listing.pieces:
        return _joined(directory / f"{name}{STREAM_SUFFIX}", listing.url, listing.pieces[name])
    return None


def is_recent(directory: Path) -> bool:
    """Return True if the directory stands for a run at a URL to which something came a short time ago."""
    if not (directory / REMOTE).exists():
        return False
    return time.time() - _read_listing(directory).newest_s < RECENT_S


def address(directory: Path) -> str | None:
    """Return the URL that a directory stands for; None for any other."""
    return _read_listing(directory).url if (directory / REMOTE).exists() else None


def _by_directory(objects: Mapping[str, dict[str, Any]], base: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Group the objects by directory below `base`, `.` for itself; those of records alone."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path, info in objects.items():
        below = path.removeprefix(base).lstrip("/")
        directory, _, name = below.rpartition("/")
        if name and not name.startswith(".") and ".." not in directory.split("/"):
            found.setdefault(directory or ".", {})[name] = {**info, "name": path}
    is_record = any(RUN_JSON in files for files in found.values())
    return found if is_record else {}


def _is_small(name: str, info: Mapping[str, Any]) -> bool:
    return name.endswith(".json") and (info["size"] or 0) <= MOST_JSON_BYTES


def _version(info: Mapping[str, Any]) -> str:
    """Return what changes when an object is written again."""
    changed = next(
        (info[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in info), ""
    )
    return f"{changed} {info['size']}"


def _changed_s(info: Mapping[str, Any]) -> float:
    for key in ("LastModified", "last_modified", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _listing(url: str, files: Mapping[str, dict[str, Any]]) -> _Listing:
    listing = _Listing(url, max((_changed_s(info) for info in files.values()), default=0.0))
    for name, info in sorted(files.items()):
        stem, _, rest = name.partition(".")
        if stem not in TABLES:
            continue
        if rest == "parquet":
            listing.tables[stem] = [info["name"], info["size"], _version(info)]
        elif rest.startswith("arrows.") and rest[7:].isdecimal():
            listing.pieces.setdefault(stem, []).append([int(rest[7:]), info["name"], info["size"]])
    listing.small = {name: _version(info) for name, info in files.items() if _is_small(name, info)}
    return listing


def _update(directory: Path, before: _Listing, after: _Listing) -> None:
    """Note what is at the URL now, and remove here what another has taken the place of."""
    for name in TABLES:
        if before.tables.get(name) != after.tables.get(name):
            (directory / f"{name}.parquet").unlink(missing_ok=True)
        begins = [piece[0] for piece in before.pieces.get(name, [])]
        if name not in after.pieces or [p[0] for p in after.pieces[name]][: len(begins)] != begins:
            (directory / f"{name}{STREAM_SUFFIX}").unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / REMOTE, json.dumps(asdict(after)))


def _read_listing(directory: Path) -> _Listing:
    with suppress(OSError, ValueError, TypeError, TraceError):
        return _Listing(**json.loads(read_text(directory / REMOTE)))
    return _Listing("")


def _joined(local: Path, url: str, pieces: list[list[Any]]) -> Path:
    """Append to a stream the pieces that it lacks: each says where it begins."""
    held = local.stat().st_size if local.exists() else 0
    missing = [(begin, path) for begin, path, size in pieces if begin + size > held]
    if not missing:
        return local
    with reached(url):
        fs, _ = filesystem(url)
        contents = fs.cat([path for _, path in missing])
    with local.open("r+b" if held else "wb") as file:
        for begin, path in missing:
            if begin > held:  # a piece before it is missing: the stream is torn there
                break
            content = contents[path]
            file.seek(begin)
            file.write(content)
            held = begin + len(content)
    return local


def _written(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def _remove_gone(root: Path, by_run: Mapping[str, object]) -> None:
    """Remove the runs that are no longer at the URL."""
    if not root.exists():
        return
    for listing in list(root.rglob(REMOTE)):
        below = listing.parent.relative_to(root).as_posix()
        if below not in by_run:
            shutil.rmtree(listing.parent, ignore_errors=True)
