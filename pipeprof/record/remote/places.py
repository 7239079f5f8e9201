"""URLs of records, the file systems that fsspec has for them, and local directories that stand for them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipeprof.errors import PipeprofError, TraceError, first_line
from pipeprof.redact import redact

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.")
_EXTRAS: Final = {
    "s3": "'pipeprof[s3]'",
    "s3a": "'pipeprof[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}


def is_url(text: object) -> bool:
    """Return True for a URL that fsspec is asked for."""
    return isinstance(text, str) and _URL.match(text) is not None


def check_scheme(url: str) -> None:
    """Raise `TraceError` if fsspec has nothing for a URL, or the package is missing; imports no client."""
    from fsspec.registry import known_implementations, registry

    _refuse_credentials(url)
    scheme = url.partition("://")[0].lower()
    if scheme in registry:  # loaded by now, or one of the user's own
        return
    known = known_implementations.get(scheme)
    if known is None:
        raise TraceError(f"{redact(url)}: fsspec knows no {scheme}://", "give s3://, gs:// or a directory")
    if find_spec(known["class"].partition(".")[0]) is None:
        raise _not_installed(url, scheme, str(known.get("err", "")))


def _refuse_credentials(url: str) -> None:
    """Raise `TraceError` for a URL with a credential in it, which files and lists of processes would show."""
    if redact(url) != url:
        raise TraceError(
            f"{redact(url)} contains a credential",
            "give it in the environment, or in fsspec's configuration, and leave it out of the URL",
        )


def _not_installed(url: str, scheme: str, said: str) -> TraceError:
    package = _EXTRAS.get(scheme)
    remedy = f"pip install {package}" if package else said or "install what fsspec asks for"
    return TraceError(f"{redact(url)}: no package for {scheme}:// is installed", remedy)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path of the URL in it.

    Raises `TraceError` if there is none for it, or its package is not installed.
    """
    _refuse_credentials(url)
    scheme = url.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except ImportError as error:
        raise _not_installed(url, scheme, first_line(error)) from error
    except Exception as error:  # clients raise what they like
        raise TraceError(f"{redact(url)} cannot hold a record: {first_line(error)}") from error
    return fs, str(path).rstrip("/")


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Raise one `TraceError` for whatever goes wrong with a place."""
    try:
        yield
    except PipeprofError:
        raise
    except Exception as error:  # clients raise what they like
        said = redact(f"{type(error).__name__}: {first_line(error)}")
        raise TraceError(
            f"{redact(url)} cannot be read: {said}", "check the URL and its credentials"
        ) from error


def root_of(kind: str) -> Path:
    """Return the directory that holds those which stand for URLs, `outgoing` or `incoming`."""
    return Path(os.getenv("XDG_CACHE_HOME") or Path.home() / ".cache") / "pipeprof" / kind


def local_of(kind: str, url: str) -> Path:
    """Return the directory on this machine that stands for `url`, `outgoing` or `incoming`."""
    name = re.sub(r"[^\w.-]", "_", url.rstrip("/").rpartition("/")[2]) or "record"
    return root_of(kind) / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:10]}"
