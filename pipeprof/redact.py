"""Redaction of what looks like a credential, before anything is written down or shown.

A run keeps the command that started it, errors, warnings, paths and URLs, and people share its pages.
Names decide (`--hf-token VALUE`, `api_key=VALUE`, `https://user:password@host`, signed parameters), and the
published shapes of tokens. Too much is struck out rather than too little; numbers and paths stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

STRUCK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"secret|token|passw|passphrase|credential|connection_?string|cookie|authoriz"
    r"|(?<![a-z])(?:(?:api|access|account|p)?keys?|sig|sas|pwd|auth|signature(?!_version))(?![a-z])"
)
"""Pattern in the name of an option or of a URL's parameter, written in small letters with underscores."""
_SECRET_LAST_WORD: Final = re.compile(
    r"(?:^|_)(?:\w*secret|\w*token|passw\w*|passphrase|credentials?|connection_?string|cookie|authorization"
    r"|bearer|(?:api|access|account|private|signing|p)?_?key|sig|sas|pwd|auth|signature)$"
)
"""Pattern for running text, where other names stand too, such as `KeyError`, `tokenizer` and `max_tokens`."""
_CONTAINERS: Final = ("abfs", "abfss", "az")
"""Schemes in which the part before the `@` is a container's name."""
_SHAPES: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+|(?<![\w/.-])[0-9a-f]{40}(?![\w.-]))"
    r"|(?<=Bearer )[\w.~+/=-]{8,}|(?<=Basic )[A-Za-z0-9+/=]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
"""Patterns of tokens whose issuers publish their form: Hugging Face, GitHub, GitLab, OpenAI and alike, AWS,
Google, Slack, JSON web tokens, Weights & Biases (as long as a commit's hash, which is struck out too), HTTP's
Authorization header, PEM private keys."""
_SPOKEN: Final = re.compile(
    r"(?i:\b(?:password|passphrase|secret|token|credential|(?:api|access|secret|private|account)[ _-]?key))"
    r"(?: (?i:is|was|of|for \S+|given|used))?[ ,:]{1,2}[\"'`(]?"
    r"(?P<value>(?=[^\s\"'`)]*\d)[^\s\"'`),;]{8,})"
)
"""Pattern of a sentence that says a credential: “the token abc123… was refused”."""
_QUOTED_PAIR: Final = re.compile(
    r"(?P<name>(?<![\w.-])[\w.-]+)(?P<close>[\"']?\]?\s*[=:,]\s*)(?P<quote>[\"'])"
    r"(?P<value>(?:(?!(?P=quote)).)+)(?P=quote)"
)
"""Pattern of a name and a literal in source text: an expression hides nothing."""
_SHORT_PASSWORDS: Final = frozenset({"-p", "-P", "--pw"})
"""Options that many programs take a password in. A number, as of a port, and a path stay."""
_USER_OPTIONS: Final = frozenset({"-u", "--user", "--userpwd"})
"""Options whose value may be `user:password`."""
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s\"'<>|]+)")
_NAME: Final = re.compile(r"(?P<name>(?<![\w.-])-{0,2}[A-Za-z][\w.-]*)[\"']?\s*[=:]\s*")
_VALUE: Final = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s\"',;&|)}\]]+")
"""Patterns of a pair: its name with the sign behind it, and its value."""


def is_secret_name(name: str) -> bool:
    """Return True for the name of an option or of a URL's parameter that holds a credential."""
    return _SECRET_NAME.search(_words(name)) is not None


@lru_cache(maxsize=4096)
def redact(text: str) -> str:
    """Return `text` with URL user parts, signed parameters, secret pairs and known tokens struck out."""
    text = _SHAPES.sub(STRUCK, text)
    text = _SPOKEN.sub(_redact_value, text)
    if "://" in text:
        text = _URL.sub(_redact_url, text)
    return _redact_pairs(text) if "=" in text or ":" in text else text


def redact_command(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the values of options struck out whose names are those of secrets."""
    shown: list[str] = []
    option = ""
    for argument in arguments:
        if option and not argument.startswith("--"):
            shown.append(_redact_value_of(option, argument))
            option = ""
            continue
        name, equals, value = argument.partition("=")
        is_secret = argument.startswith("-") and _names_secret(name)
        takes_secret = is_secret or argument in _SHORT_PASSWORDS or argument in _USER_OPTIONS
        option = argument if takes_secret and not equals else ""
        shown.append(f"{name}={STRUCK}" if is_secret and value else redact(argument))
    return shown


def _redact_value_of(option: str, value: str) -> str:
    """Return the value that follows an option which may take a credential."""
    if option in _USER_OPTIONS:
        user, colon, _ = value.partition(":")
        return f"{user}:{STRUCK}" if colon and "/" not in value else redact(value)
    if option in _SHORT_PASSWORDS and (value.startswith("-") or "/" in value or _NUMBER.fullmatch(value)):
        return redact(value)
    return STRUCK


_NUMBER: Final = re.compile(r"[-+]?[\d.,:]+")


def redact_source(text: str) -> str:
    """Return a line of source text with known tokens, URLs' user parts and secrets' literals struck out."""
    text = _SHAPES.sub(STRUCK, text)
    if "://" in text:
        text = _URL.sub(_redact_url, text)
    return _QUOTED_PAIR.sub(_redact_literal, text)


def redact_all(value: Any) -> Any:
    """Return JSON-like data with each string redacted, and every value under a secret's name removed."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            key: STRUCK if isinstance(inner, str) and inner and _names_secret(str(key)) else redact_all(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_all(inner) for inner in value]
    return value


def holds_credential(url: str) -> bool:
    """Return True for a URL that names a user, or holds a signature, a key or a token."""
    scheme, _, rest = url.partition("://")
    host, *parameters = re.split(r"[?&;#]", rest)
    user, at, _ = host.partition("/")[0].rpartition("@")
    if at and (scheme not in _CONTAINERS or ":" in user):
        return True
    return any(is_secret_name(unquote(each.partition("=")[0])) for each in parameters)


def _redact_url(match: re.Match[str]) -> str:
    scheme, rest = match["scheme"], match["rest"]
    parts = re.split(r"([?&;#])", rest)
    host, slash, path = parts[0].partition("/")
    user, at, place = host.rpartition("@")
    if at and (scheme not in _CONTAINERS or ":" in user):
        parts[0] = f"{STRUCK}@{place}{slash}{path}"
    for index in range(2, len(parts), 2):
        name, equals, value = parts[index].partition("=")
        if equals and value and is_secret_name(unquote(name)):
            parts[index] = f"{name}={STRUCK}"
    return f"{scheme}://{''.join(parts)}"


def _redact_pairs(text: str) -> str:
    """Strike out the values of pairs whose names are those of secrets.

    The value of any other is looked at anew, as a pair may stand in it: an error's name before one, for one.
    """
    parts: list[str] = []
    at = 0
    while named := _NAME.search(text, at):
        begin = end = named.end()
        shown = ""
        if text.startswith(("//", STRUCK), begin):
            end = _end_of_value(text, begin)
            shown = text[begin:end]
        elif _names_secret(named["name"]):
            end = _end_of_value(text, begin)
            in_path = text.endswith("/", 0, named.start())
            shown = _struck(text[begin:end], in_path)
        parts += (text[at:begin], shown)
        at = end
    return "".join((*parts, text[at:]))


def _end_of_value(text: str, begin: int) -> int:
    value = _VALUE.match(text, begin)
    return begin if value is None else value.end()


def _struck(value: str, in_path: bool) -> str:
    """Return what is shown of a secret pair's value: its quotes, and what follows a folder's name."""
    if value[:1] in ('"', "'"):
        return f"{value[0]}{STRUCK}{value[0]}"
    rest = "".join(value.partition("/")[1:]) if in_path else ""
    return f"{STRUCK}{rest}" if value else ""


def _redact_literal(match: re.Match[str]) -> str:
    if not _names_secret(match["name"]):
        return match[0]
    return f"{match['name']}{match['close']}{match['quote']}{STRUCK}{match['quote']}"


def _redact_value(match: re.Match[str]) -> str:
    whole, value = match[0], match["value"]
    return match[0] if STRUCK in value else whole[: len(whole) - len(value)] + STRUCK


_MOST_NAME: Final = 120
"""Characters at a name's end that are looked at: a search in a word without end takes minutes."""


def _names_secret(name: str) -> bool:
    return _SECRET_LAST_WORD.search(_words(name[-_MOST_NAME:])) is not None


def _words(name: str) -> str:
    """Return a name in small letters with underscores between its words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.lstrip("-"))
    return re.sub(r"[-.]", "_", spaced).lower()
