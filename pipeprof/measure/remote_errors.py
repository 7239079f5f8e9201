"""What clients of remote places raise, said so that a user can act on it.

Classes are known by name: the clients' libraries are optional, and each wraps the others' errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from pipeprof.errors import MeasureError, PipeprofError

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
    """Whatever goes wrong with the place at `url` is a `MeasureError` that names it."""
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
    """Problem and remedy of a client's error."""
    if isinstance(error, PipeprofError):
        return error.problem, error.remedy
    said = first(error)
    return next((problem.format(said), remedy) for fits, problem, remedy in _REASONS if fits(Told.of(error)))


class Told(NamedTuple):
    """What an error says of itself and of those that it came from."""

    error: BaseException
    names: frozenset[str]
    """Of the classes."""
    code: str
    """Of an S3 answer, or the status of an HTTP one."""

    @classmethod
    def of(cls, error: BaseException) -> Told:
        """Look through the whole chain."""
        chain = list(_chain(error))
        code = next((code for each in chain if (code := _code(each))), "")
        return cls(error, frozenset(type(each).__name__ for each in chain), code)


def no_bucket(error: BaseException) -> bool:
    """Whether it is the bucket that is missing, and not only a file in it."""
    return Told.of(error).code == "NoSuchBucket" or "bucket does not exist" in str(error)


_REASONS: Final[tuple[tuple[Callable[[Told], object], str, str], ...]] = (
    (lambda told: told.names & _NO_CREDENTIALS, "there are no credentials", _CREDENTIALS),
    (
        lambda told: no_bucket(told.error),
        "there is no such bucket",
        "create it, or check the name and the endpoint",
    ),
    (
        lambda told: isinstance(told.error, PermissionError) or told.code in ("401", "403"),
        "permission denied ({})",
        _CREDENTIALS,
    ),
    (
        lambda told: told.names & _UNREACHABLE,
        "the endpoint cannot be reached ({})",
        "check the network, AWS_ENDPOINT_URL and storage.options.endpoint_url",
    ),
    (
        lambda told: told.code in ("SlowDown", "ServiceUnavailable", "503", "429"),
        "the server refused it as one request too many, until the client gave up ({})",
        "ask less often: fewer workers, larger files; or let the client try longer",
    ),
    (lambda told: isinstance(told.error, FileNotFoundError), "there is no such file", "check the path"),
    (
        lambda told: "rotocol not known" in str(told.error),
        "fsspec knows no such protocol",
        "for example s3://bucket/prefix",
    ),
    (
        lambda told: isinstance(told.error, TypeError),
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


def first(error: BaseException) -> str:
    """The first line of an error, or its class."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
