"""Sending of a record to a URL: as whole objects, in an order that readers can rely on.

A run is written to a local directory that stands for the URL, and sent from there. `run.json` is sent first,
so that the run is visible, and again last, so that a run that says `complete` is complete. A growing stream
is sent in pieces named after the offset at which they begin, `steps.arrows.0000000000000000`, which together
are the stream up to then; the Parquet file at the end takes their place. What was sent is noted beside the
run, and is not sent twice.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import TraceError
from pipeprof.record.files import write_atomically
from pipeprof.record.plain_files import read_text
from pipeprof.record.remote.places import check_scheme, filesystem, local_of
from pipeprof.record.schema import JOB_JSON, RUN_JSON, STREAM_SUFFIX
from pipeprof.redact import redact

DESTINATION: Final = ".destination.json"
"""File that names the URL which its directory stands for."""
SENT: Final = ".sent.json"
"""File that notes what of its directory was sent."""
PIECE_BYTES: Final = 32 << 20
"""Largest piece of a stream, and largest file that is read at once."""
DEPTH: Final = 3
"""Levels of directories below that of a URL: `restart-1/rank-0`."""


def stage(url: str) -> Path:
    """Make the local directory that stands for `url`; raises `TraceError` if it cannot be written."""
    check_scheme(url)
    root = local_of("outgoing", url)
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_atomically(root / DESTINATION, json.dumps({"url": url.rstrip("/")}))
    except OSError as error:
        raise TraceError(
            f"cannot write {root}, where a record lies until it is sent: {error.strerror}",
            "set XDG_CACHE_HOME to a directory that you may write",
        ) from error
    return root


def destination(directory: Path) -> tuple[Path, str] | None:
    """Return the directory that stands for a URL, and the URL, for what lies in it; None for any other."""
    for place in (directory, *directory.parents)[: DEPTH + 1]:
        with suppress(OSError, ValueError, KeyError, TypeError, TraceError):
            return place, str(json.loads(read_text(place / DESTINATION))["url"])
    return None


def address(directory: Path) -> str:
    """Return the place from which a directory's record is read later: its URL, else its path."""
    found = destination(directory.absolute())
    if found is None:
        return str(directory)
    root, url = found
    below = directory.absolute().relative_to(root).as_posix()
    return url if below == "." else f"{url}/{below}"


@dataclass(slots=True)
class _Sent:
    """Note of what was sent of one directory."""

    place: str = ""
    """The directory, below the root: a record that was moved since has been sent elsewhere."""
    files: dict[str, list[int]] = field(default_factory=dict)
    """Size and time of change of each whole file, as it was sent."""
    pieces: dict[str, list[int]] = field(default_factory=dict)
    """Starts of the pieces of each stream."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each stream that were sent."""


class Outgoing:
    """Sends what lies in `root` to `url`. Raises whatever the client of the place does."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self._fs, self._base = filesystem(url)
        self._known: dict[Path, _Sent] = {}

    def send(self, directory: Path) -> None:
        """Send what is new in the directory of a run, and beside it in the root.

        Raises `TraceError` if another run or job is there.
        """
        for place in self._around(directory):
            self._send_all(place)

    def send_tree(self) -> None:
        """Send all of the root, and remove at the URL what was moved or removed here since."""
        for directory in self._directories(self.root):
            self._send_all(directory)
        self._forget_moved()

    def send_part(self, directory: Path) -> None:
        """Send a run, and those of the processes that it started, with what lies beside it."""
        for place in (*self._around(directory), *self._directories(directory)):
            self._send_all(place)

    def left(self, directory: Path) -> list[Path]:
        """Return the files in and below a directory that have not been sent as they are now."""
        return [
            path
            for place in self._directories(directory)
            for path in _files(place)
            if not self._is_sent(path, self._sent(place))
        ]

    def remove(self, directory: Path) -> None:
        """Remove what was sent in and below a directory, and what lies beside it if nothing else does."""
        for place in self._directories(directory)[::-1]:
            self._remove_files(place)
        for place in directory.parents:
            if not place.is_relative_to(self.root) or any(path.is_dir() for path in place.iterdir()):
                return  # other ranks of this machine have their parts in it
            self._remove_files(place)

    def _around(self, directory: Path) -> list[Path]:
        """Return the directories from the root to that of a run: a job's marker lies in one."""
        return [place for place in (*directory.parents[::-1], directory) if place.is_relative_to(self.root)]

    def _directories(self, top: Path) -> list[Path]:
        """List a directory and those below it, from the top."""
        below = [path for path in sorted(top.rglob("*")) if path.is_dir()] if top.exists() else []
        return [top, *(path for path in below if len(path.relative_to(self.root).parts) <= DEPTH)]

    def _remove_files(self, directory: Path) -> None:
        sent = self._sent(directory)
        for path in _files(directory):
            if self._is_sent(path, sent):
                path.unlink(missing_ok=True)
        if not _files(directory):
            self._known.pop(directory, None)
            (directory / SENT).unlink(missing_ok=True)
            if directory == self.root and not any(path.is_dir() for path in directory.iterdir()):
                (directory / DESTINATION).unlink(missing_ok=True)
            with suppress(OSError):  # it holds something that is not a record
                directory.rmdir()

    # -- one directory -------------------------------------------------------------------------------------

    def _send_all(self, directory: Path) -> None:
        sent = self._sent(directory)
        paths = _files(directory)
        names = {path.name for path in paths}
        first = [name for name in (JOB_JSON, RUN_JSON) if name in names and name not in sent.files]
        for name in first:
            self._claim(directory / name)
        ordered = sorted(paths, key=lambda path: (path.name not in first, path.name == RUN_JSON, path.name))
        for path in [*ordered, *(path for path in ordered if path.name == RUN_JSON)]:
            self._send(path, sent)

    def _claim(self, path: Path) -> None:
        """Raise `TraceError` if there is another's file of that name."""
        remote = self._remote(path)
        if not self._fs.exists(remote):
            return
        theirs, ours = _identity(self._fs.cat_file(remote)), _identity(path.read_bytes())
        if theirs != ours:
            what = "job" if path.name == JOB_JSON else "run"
            raise TraceError(
                f"{redact(self._url_of(path.parent))} already holds another {what}", "choose another --out"
            )

    def _send(self, path: Path, sent: _Sent) -> None:
        try:
            if path.suffix == STREAM_SUFFIX:
                self._send_rest(path, sent)
            elif not self._is_sent(path, sent):
                self._send_whole(path, sent)
        except FileNotFoundError:
            if path.exists():  # the place has no such bucket
                raise

    def _send_rest(self, path: Path, sent: _Sent) -> None:
        """Send what a stream has grown by."""
        with path.open("rb") as file:
            while True:
                begin = sent.sizes.get(path.stem, 0)
                file.seek(begin)
                piece = file.read(PIECE_BYTES)
                if not piece:
                    return
                self._fs.pipe_file(f"{self._remote(path)}.{begin:016d}", piece)
                sent.pieces.setdefault(path.stem, []).append(begin)
                sent.sizes[path.stem] = begin + len(piece)
                self._note(path.parent, sent)

    def _send_whole(self, path: Path, sent: _Sent) -> None:
        state, remote = _state(path), self._remote(path)
        if state[0] > PIECE_BYTES:
            self._fs.put_file(str(path), remote)
        else:
            self._fs.pipe_file(remote, path.read_bytes())
        sent.files[path.name] = state
        if path.suffix == ".parquet":
            self._remove_pieces(path, sent)
        self._note(path.parent, sent)

    def _remove_pieces(self, path: Path, sent: _Sent) -> None:
        stream = self._remote(path.with_suffix(STREAM_SUFFIX))
        for begin in sent.pieces.pop(path.stem, []):
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{stream}.{begin:016d}")
        sent.sizes.pop(path.stem, None)

    def _is_sent(self, path: Path, sent: _Sent) -> bool:
        if path.suffix == STREAM_SUFFIX:
            return sent.sizes.get(path.stem, 0) == path.stat().st_size
        return sent.files.get(path.name) == _state(path)

    def _forget_moved(self) -> None:
        """Remove at the URL the files of the root, and the runs of processes, that are no longer here."""
        sent = self._sent(self.root)
        for name in [name for name in sent.files if not (self.root / name).exists()]:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._base}/{name}")
            del sent.files[name]
        for table in [table for table in sent.pieces if not (self.root / f"{table}{STREAM_SUFFIX}").exists()]:
            self._remove_pieces(self.root / f"{table}.parquet", sent)
        self._note(self.root, sent)
        here = {path.name for path in self.root.glob("process-*")}
        self._fs.invalidate_cache()
        for entry in self._fs.ls(self._base, detail=True):
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if entry["type"] == "directory" and name.startswith("process-") and name not in here:
                self._fs.rm(f"{self._base}/{name}", recursive=True)

    # -- notes ---------------------------------------------------------------------------------------------

    def _sent(self, directory: Path) -> _Sent:
        if directory not in self._known:
            self._known[directory] = self._read_notes(directory)
        return self._known[directory]

    def _read_notes(self, directory: Path) -> _Sent:
        place = directory.relative_to(self.root).as_posix()
        with suppress(OSError, ValueError, TypeError, TraceError):
            notes = _Sent(**json.loads(read_text(directory / SENT)))
            if notes.place == place:
                return notes
        return _Sent(place)

    def _note(self, directory: Path, sent: _Sent) -> None:
        with suppress(FileNotFoundError):  # the directory was moved meanwhile
            write_atomically(directory / SENT, json.dumps(asdict(sent)))

    def _remote(self, path: Path) -> str:
        return f"{self._base}/{path.relative_to(self.root).as_posix()}"

    def _url_of(self, directory: Path) -> str:
        below = directory.relative_to(self.root).as_posix()
        return self.url if below == "." else f"{self.url}/{below}"


def _files(directory: Path) -> list[Path]:
    """List the files of a record: none that begins with a dot is one."""
    try:
        return sorted(
            path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file()
        )
    except FileNotFoundError:
        return []


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _identity(text: bytes) -> Any:
    """Return what identifies a run or job: `run.json` changes while it goes on, its beginning does not."""
    try:
        facts = json.loads(text)
        return (facts["created_at"], facts["clock"], facts["pid"]) if "created_at" in facts else facts
    except (ValueError, KeyError, TypeError):
        return text
