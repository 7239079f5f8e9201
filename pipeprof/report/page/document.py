"""Self-contained HTML file from a template: style, scripts and data inside, nothing from the network.

The content-security policy allows exactly the scripts that were put in, by their hashes, and no connection
of any kind, so that even markup that slipped through would do nothing. Values reach the page as text
(Jinja's escaping) or as JSON in which no `<` is left.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from pipeprof import __version__
from pipeprof.report.page import charts

_PACKAGE: Final = "pipeprof.report.page"
_UNIT = re.compile(r"(?<=\d) (?=%|(?:[mµn]?s|[KMGT]?B(?:/s)?|samples/s|min|h)\b)")


def _whole(value: Any) -> Any:
    """Keep a number and its unit on one line: applied to every text that the template prints."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _UNIT.sub("\u00a0", value)
    return value


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")


def breakable(text: str) -> Any:
    """Return a text that a narrow column may break where a word begins inside a name, as in `ToTensor`."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(_whole(part)) for part in _HUMP.split(text))


_OPTION = re.compile(r"(?:(?<=\s)|^)(-\S{1,24})(?=\s|$)")


def command(text: str) -> Any:
    """Return a command whose options no line's end may break behind a hyphen."""
    from markupsafe import Markup, escape

    whole = Markup('<span class="whole">{}</span>')
    parts = _OPTION.split(text)
    return Markup("").join(whole.format(part) if i % 2 else escape(part) for i, part in enumerate(parts))


_TICKED = re.compile(r"`([^`]+)`")


def prose(text: str) -> Any:
    """Return a sentence in which what stands between backticks is shown as code."""
    from markupsafe import Markup, escape

    parts = _TICKED.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(_whole(part))
        for i, part in enumerate(parts)
    )


def render(
    template: str,
    title: str,
    context: Mapping[str, Any],
    data: Mapping[str, Any],
    timeline: bool,
    package: str = _PACKAGE,
) -> str:
    """Render the page as text. `data` holds `charts` and whatever the scripts need.

    `package` has the template in its folder `templates`, and may extend those of the report.
    """
    scripts = [_bundle(), asset("report.js"), *([asset("timeline.js")] if timeline else [])]
    themes = {"light": charts.theme(dark=False), "dark": charts.theme(dark=True)}
    from markupsafe import Markup

    return str(
        _environment(package)
        .get_template(template)
        .render(
            title=title,
            version=__version__,
            policy=_policy(scripts),
            css=Markup(asset("report.css")),
            data=Markup(embed({"themes": themes, **data})),
            scripts=[Markup(script) for script in scripts],
            **context,
        )
    )


def embed(value: Any) -> str:
    """Return JSON that is safe inside a script element: no `<`, no line separators, no NaN."""
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    """Return the value with null for every number that JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def asset(name: str) -> str:
    """Return a file of `report/static`."""
    return (resources.files(_PACKAGE) / "static" / name).read_text(encoding="utf-8")


@cache
def _environment(package: str) -> Any:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _PACKAGE))]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_whole,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["prose"] = prose
    environment.filters["command"] = command
    return environment


@cache
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, as `python -m tests.benchmarks.vega` made it."""
    packed = (resources.files(_PACKAGE) / "static" / "vega.js.gz").read_bytes()
    return gzip.decompress(packed).decode()
