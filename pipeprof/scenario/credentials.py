"""Credentials, which a scenario may not hold, since a run keeps it: keys, passwords, tokens, signed URLs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pipeprof.redact import holds_credential, is_secret_name

_NO_SECRET: Final = ("", "anon", "cache", "cloud", "google_default")
"""Values that gcsfs takes as `token` and that are not tokens."""
_AWS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of the client's own"
_AZURE: Final = "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
_GOOGLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_VARIABLES: Final = {
    **dict.fromkeys(("s3", "s3a"), _AWS),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), _AZURE),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
}
"""Places, by scheme, in which the usual client looks for credentials itself."""
_FSSPEC: Final = "in ~/.config/fsspec/conf.json, which fsspec reads as options"


def in_options(options: Any, name: str = "") -> Iterator[str]:
    """Yield the full names of what holds a credential in `options`, however deep; `name` is their own."""
    inside = options.items() if isinstance(options, dict) else enumerate(options)
    for key, value in inside:
        full = f"{name}.{key}" if name else f"{key}"
        if is_secret_name(str(key)) and not (value is None or isinstance(value, bool) or value in _NO_SECRET):
            yield full
        elif isinstance(value, dict | list):
            yield from in_options(value, full)
        elif isinstance(value, str) and "://" in value and holds_credential(value):
            yield full


def where_instead(place: str) -> str:
    """Return where the credentials of a remote place belong."""
    variables = _VARIABLES.get(place.rpartition("::")[2].partition("://")[0])
    return f"as {variables}, or {_FSSPEC}" if variables else _FSSPEC
