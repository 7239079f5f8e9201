"""What must not stand in a scenario, since a run keeps its scenario: keys, passwords, tokens, signed URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

_SECRET: Final = re.compile(
    r"secret|token|passw|passphrase|credential|connection_?string|cookie|authoriz"
    r"|(?<![a-z])(?:(?:api|access|account|p)?keys?|sig|sas|pwd|auth|signature(?!_version))(?![a-z])"
)
"""In the name of an option or of a URL's parameter, written in small letters with underscores."""
_NO_SECRET: Final = ("", "anon", "cache", "cloud", "google_default")
"""What gcsfs takes as `token` and is none."""
_CONTAINERS: Final = ("abfs", "abfss", "az")
"""Schemes in which what stands before the `@` is a container's name."""
_AWS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of the client's own"
_AZURE: Final = "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
_GOOGLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_VARIABLES: Final = {
    **dict.fromkeys(("s3", "s3a"), _AWS),
    **dict.fromkeys((*_CONTAINERS, "adl"), _AZURE),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
}
"""By scheme: where the usual client looks for credentials itself."""
_FSSPEC: Final = "in ~/.config/fsspec/conf.json, which fsspec reads as options"


def in_url(url: str) -> bool:
    """Whether a URL names a user or holds a signature, a key or a token."""
    scheme, _, rest = url.partition("://")
    host, *parameters = re.split(r"[?&;#]", rest)
    user, at, _ = host.partition("/")[0].rpartition("@")
    if at and (scheme not in _CONTAINERS or ":" in user):
        return True
    return any(_is_secret(unquote(each.partition("=")[0])) for each in parameters)


def in_options(options: Any, name: str = "") -> Iterator[str]:
    """The full names of what holds a credential in `options`, however deep; `name` is their own."""
    inside = options.items() if isinstance(options, dict) else enumerate(options)
    for key, value in inside:
        full = f"{name}.{key}" if name else f"{key}"
        if _is_secret(str(key)) and not (value is None or isinstance(value, bool) or value in _NO_SECRET):
            yield full
        elif isinstance(value, dict | list):
            yield from in_options(value, full)
        elif isinstance(value, str) and "://" in value and in_url(value):
            yield full


def _is_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    return _SECRET.search(words) is not None


def where_instead(place: str) -> str:
    """Where the credentials of a remote place belong."""
    variables = _VARIABLES.get(place.rpartition("::")[2].partition("://")[0])
    return f"as {variables}, or {_FSSPEC}" if variables else _FSSPEC
