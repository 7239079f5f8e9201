"""Translates errors of remote storage clients into a problem and a remedy.

Classes are known by name: the clients' libraries are optional, and each wraps the others' errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from pipeprof.errors import MeasureError, PipeprofError, first_line

_NO_CREDENTIALS: Final = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")
)
_UNREACHABLE: Final = frozenset(
    (
        "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ClientConnectorError",
        "ConnectionRefusedError", "gaierror", "ConnectionClosedError", "ServerDisconnectedError",
        "ClientConnectorDNSError", "FSTimeoutError", "ProxyConnectionError",
    )
)  # fmt: skip
_CREDENTIALS: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; "
    "for public data say storage.options: {anon: true}"
)
_EXTRAS: Final = {"s3": "'pipeprof[s3]'", "s3a": "'pipeprof[s3]'", "http": "aiohttp", "https": "aiohttp"}


@contextmanager
def refused(url: str) -> Iterator[None]:
    """Raise `MeasureError` naming `url` for any error raised in the block."""
    try:
        yield
    except PipeprofError:
        raise
    except ImportError as error:
        scheme = url.partition("://")[0]
        named = re.search(r"[Ii]nstall (?:the )?(\w[\w-]*)", str(error))
        missing = named[1] if named else str(error.name or scheme)
        package = _EXTRAS.get(scheme, missing)
        raise MeasureError(
            f"storage.path: {url}: {missing} is not installed", f"pip install {package}"
        ) from error
    except Exception as error:  # clients raise what they like
        problem, remedy = reason_of(error)
        raise MeasureError(f"storage.path: {url}: {problem}", remedy) from error


def reason_of(error: BaseException) -> tuple[str, str]:
    """Return problem and remedy of a client's error."""
    if isinstance(error, PipeprofError):
        return error.problem, error.remedy
    line = first_line(error)
    return next(
        (problem.format(line), remedy) for fits, problem, remedy in _REASONS if fits(Failure.of(error))
    )


class Failure(NamedTuple):
    """An error with what it and its causes say."""

    error: BaseException
    names: frozenset[str]
    """Names of the classes."""
    code: str
    """Code of an S3 answer, or the status of an HTTP answer."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Gather it from the whole chain of causes."""
        chain = list(_chain(error))
        code = next((code for each in chain if (code := _code(each))), "")
        return cls(error, frozenset(type(each).__name__ for each in chain), code)


def no_bucket(error: BaseException) -> bool:
    """Return whether the bucket is missing, and not only a file in it."""
    return Failure.of(error).code == "NoSuchBucket" or "bucket does not exist" in str(error)


_REASONS: Final[tuple[tuple[Callable[[Failure], object], str, str], ...]] = (
    (lambda failure: failure.names & _NO_CREDENTIALS, "there are no credentials", _CREDENTIALS),
    (
        lambda failure: no_bucket(failure.error),
        "there is no such bucket",
        "create it, or check the name and the endpoint",
    ),
    (
        lambda failure: isinstance(failure.error, PermissionError) or failure.code in ("401", "403"),
        "permission denied ({})",
        _CREDENTIALS,
    ),
    (
        lambda failure: failure.names & _UNREACHABLE,
        "the endpoint cannot be reached ({})",
        "check the network, AWS_ENDPOINT_URL and storage.options.endpoint_url",
    ),
    (
        lambda failure: failure.code in ("SlowDown", "ServiceUnavailable", "503", "429"),
        "the server refused it as one request too many, until the client gave up ({})",
        "ask less often: fewer workers, larger files; or let the client try longer",
    ),
    (lambda failure: isinstance(failure.error, FileNotFoundError), "there is no such file", "check the path"),
    (
        lambda failure: "rotocol not known" in str(failure.error),
        "fsspec knows no such protocol",
        "for example s3://bucket/prefix",
    ),
    (
        lambda failure: isinstance(failure.error, TypeError),
        "{}",
        "check storage.options: fsspec's client takes them as its arguments",
    ),
    (lambda _: True, "{}", "check that it can be read from here with fsspec"),
)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return str((response.get("Error") or {}).get("Code") or "")
    return str(getattr(error, "status", "") or "")
