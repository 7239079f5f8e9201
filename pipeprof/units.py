"""Numbers as people read them: three digits, the unit that fits, and "not observed" for what was not seen."""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime
from typing import Final

NOT_OBSERVED: Final = "not observed"
NS_PER_S: Final = 1_000_000_000

_DURATIONS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))


_ASCII: Final = str.maketrans(
    {"·": "-", "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "µ": "u", "→": "->", "█": "#", "│": "|"}
    | {"“": '"', "”": '"', "’": "'", "±": "+-"}
    | dict(zip("▁▂▃▄▅▆▇", ".:-=+*#", strict=True))
)


def encodable(text: str, encoding: str) -> bool:
    """Return whether a stream of this encoding can take the text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def ascii_only(text: str) -> str:
    """Return the text in ASCII, signs by those that look alike: for terminals and files of old encodings."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def printable(text: str) -> str:
    """Return `text` without control and format characters, which could drive or mislead a terminal.

    Line breaks stay; bidirectional marks, escapes and surrogates become `\N{REPLACEMENT CHARACTER}`.
    """
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)


def _number(value: float | None) -> float | None:
    """Return the value as a finite float, or None: a NaN is not an observation."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def digits(value: float | None, significant: int = 3) -> str:
    """Return `significant` digits, thousands apart, no exponent below 10^15: 0.0421, 42.1, 4,210."""
    number = _number(value)
    if number is None:
        return NOT_OBSERVED
    if number == 0:
        return "0"
    if abs(number) >= 1e15 or abs(number) < 1e-6:
        return f"{number:.{significant - 1}e}"
    places = max(0, significant - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:,.{places}f}"
    carried = places > 0 and abs(float(text.replace(",", ""))) >= 10 ** (significant - places)  # 9.996
    return f"{number:,.{places - 1}f}" if carried else text


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    scale, unit = next(((s, u) for s, u in steps if abs(value) >= s * 0.9995), steps[-1])
    whole = scale == 1 and value == round(value)
    return f"{value:,.0f} {unit}" if whole else f"{digits(value / scale)} {unit}"


def duration(ns: float | None) -> str:
    """Return nanoseconds as `12.3 ms`; from two minutes on as `2 min 5 s`, from two hours as `2 h 5 min`."""
    number = _number(ns)
    if number is None:
        return NOT_OBSERVED
    seconds = number / NS_PER_S
    if 120 <= seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if 7200 <= seconds < 1e9:
        return f"{int(seconds // 3600):,} h {int(seconds % 3600 // 60)} min"
    return _scaled(number, _DURATIONS) if number else "0 s"


def round_duration(ns: int) -> str:
    """Return a round number of ns as it was chosen: `1 s`, `200 ms`."""
    scale, unit = next(((s, u) for s, u in _DURATIONS if ns >= s), _DURATIONS[-1])
    return f"{ns / scale:g} {unit}"


def percent(share: float | None) -> str:
    """Return a share of 1 as `27%`, with a decimal if it matters: below 10% and between 99% and 100%."""
    number = _number(share)
    if number is None:
        return NOT_OBSERVED
    value = number * 100
    if 0 < abs(value) < 0.05:
        return "< 0.1%"
    if 99.95 <= value < 100:
        return "> 99.9%"
    exact = value == 0 or 9.95 <= abs(value) <= 99 or abs(value) >= 100
    return f"{value:.0f}%" if exact else f"{value:,.1f}%"


def signed_percent(share: float | None) -> str:
    """Return a change, a share of 1, as `+27%` or `−27%`, and as `11×` from eleven times as much on; `0%` if
    it would round to less than 0.1%."""
    number = _number(share)
    if number is None:
        return NOT_OBSERVED
    if abs(number) < 0.0005:
        return "0%"
    if number >= _MANY_TIMES:
        return f"{digits(1 + number)}×"
    sign, text = "+" if number > 0 else "−", percent(abs(number))
    return f"< {sign}{text[2:]}" if text.startswith("> ") else f"{sign}{text}"


_MANY_TIMES: Final = 10.0
"""Change from which percents are hard to read."""


def signed_points(share: float | None) -> str:
    """Return a difference of two shares of 1 in percentage points: `+4.2 points`, `−27 points`."""
    text = signed_percent(share)
    return text if text == NOT_OBSERVED else f"{text.removesuffix('%')} points"


def interval(low_high: tuple[float, float] | list[float] | None) -> str:
    """Return a pair of shares as `24–30%`; empty if there is none."""
    if low_high is None or None in low_high:
        return ""
    low, high = (percent(value).removesuffix("%") for value in low_high)
    return f"{low}–{high}%"


def size(value: float | None) -> str:
    """Return bytes in powers of ten: `110 KB`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else _scaled(number, _SIZES)


def byte_rate(value: float | None) -> str:
    """Return bytes a second: `112 MB/s`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else f"{_scaled(number, _SIZES)}/s"


def sample_rate(value: float | None) -> str:
    """Return samples a second: `54.6 samples/s`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else f"{digits(number)} samples/s"


def share(text: float | str) -> float:
    """Read a share from 0 to 1, written as `5%` or `0.05`. Raises `ValueError` for any other text."""
    written = str(text).strip()
    try:
        number = float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"{text!r} is not a share: give 5% or 0.05")
    return number


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    number = _number(value)
    if number is None:
        return NOT_OBSERVED
    return f"{number:,.0f}" if abs(number) < 1e15 else digits(number)


def amount(value: float | None) -> str:
    """Return a number that was counted or set, without zeros behind it: `4`, `2.5`, `0.333`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else f"{number:.3g}" if abs(number) < 1000 else count(number)


def cores(number: float | None) -> str:
    """Return a number of cores: `1 core`, `2.5 cores`."""
    return f"{amount(number)} core{'s' * (number != 1)}"


def plural(number: int, noun: str) -> str:
    """Return a count with its noun: `1 step`, `2,000 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def moment(text: object) -> str:
    """Return an ISO time as `21 Nov 2026, 09:15`; any other text unchanged."""
    try:
        return f"{datetime.fromisoformat(str(text)):%-d %b %Y, %H:%M}"
    except ValueError:
        return str(text) if text else NOT_OBSERVED
