"""Numbers as people read them: three digits, the unit that fits, and "not observed" for what nobody saw."""

from __future__ import annotations

import math
from typing import Final

NOT_OBSERVED: Final = "not observed"

_DURATIONS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))


def _number(value: float | None) -> float | None:
    """The value as a finite float, or None: a NaN is no observation."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def digits(value: float | None, significant: int = 3) -> str:
    """`significant` digits, thousands apart, no exponent below 10^15: 0.0421, 4.21, 42.1, 421, 4,210."""
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
    """Nanoseconds as `12.3 ms`; from two minutes on as `2 min 5 s`, from two hours as `2 h 5 min`."""
    number = _number(ns)
    if number is None:
        return NOT_OBSERVED
    seconds = number / 1e9
    if 120 <= seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if 7200 <= seconds < 1e9:
        return f"{int(seconds // 3600):,} h {int(seconds % 3600 // 60)} min"
    return _scaled(number, _DURATIONS) if number else "0 s"


def round_duration(ns: int) -> str:
    """A round number of ns as it was chosen: `1 s`, `200 ms`."""
    scale, unit = next(((s, u) for s, u in _DURATIONS if ns >= s), _DURATIONS[-1])
    return f"{ns / scale:g} {unit}"


def percent(share: float | None) -> str:
    """A share of 1 as `27 %`, with a decimal where it matters: below 10 % and between 99 % and 100 %."""
    number = _number(share)
    if number is None:
        return NOT_OBSERVED
    value = number * 100
    if 0 < abs(value) < 0.05:
        return "< 0.1 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    exact = value == 0 or 9.95 <= abs(value) <= 99 or abs(value) >= 100
    return f"{value:.0f} %" if exact else f"{value:,.1f} %"


def interval(low_high: tuple[float, float] | list[float] | None) -> str:
    """A pair of shares as `24–30 %`; empty where there is none."""
    if low_high is None or None in low_high:
        return ""
    low, high = (percent(value).removesuffix(" %") for value in low_high)
    return f"{low}–{high} %"


def size(value: float | None) -> str:
    """Bytes in powers of ten: `110 KB`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else _scaled(number, _SIZES)


def byte_rate(value: float | None) -> str:
    """Bytes a second: `112 MB/s`."""
    number = _number(value)
    return NOT_OBSERVED if number is None else f"{_scaled(number, _SIZES)}/s"


def sample_rate(value: float | None) -> str:
    """Samples a second."""
    number = _number(value)
    return NOT_OBSERVED if number is None else f"{digits(number)} samples/s"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    number = _number(value)
    if number is None:
        return NOT_OBSERVED
    return f"{number:,.0f}" if abs(number) < 1e15 else digits(number)


def plural(number: int, noun: str) -> str:
    """`1 step`, `2,000 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
