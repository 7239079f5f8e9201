"""Displays a run while it lasts: a line that moves on a terminal, a plain line every few seconds elsewhere.

The loop adds three numbers a step; a thread of its own draws four times a second at most, so that showing
costs the loop next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeprof import units

DRAW_EVERY_S: Final = 0.25
LINE_EVERY_S: Final = 5.0
WINDOW_S: Final = 5.0
"""Rates and shares are those of the last seconds, so that they move."""


class Progress:
    """The progress of a run. The loop writes, the display reads; each field has a single writer."""

    def __init__(self, name: str, steps: int | None, seconds: float | None) -> None:
        self.name, self.total_steps, self.total_s = name, steps, seconds
        self.steps = self.samples = self.busy_ns = self.wait_ns = 0
        self.ready: int | None = None
        self.elapsed_s = 0.0

    @property
    def done(self) -> float | None:
        """Return the share of the run that is done, by whichever limit is nearer; None if there is no
        limit."""
        shares = []
        if self.total_steps:
            shares.append(self.steps / self.total_steps)
        if self.total_s:
            shares.append(self.elapsed_s / self.total_s)
        return min(1.0, max(shares)) if shares else None


class View(NamedTuple):
    """The figures that the display shows at one instant."""

    steps: int
    samples_per_s: float | None
    busy: float | None
    stall: float | None
    ready: int | None
    done: float | None


class _Point(NamedTuple):
    time_s: float
    steps: int
    samples: int
    busy_ns: int
    wait_ns: int


class RecentRates:
    """Turns the running totals of a `Progress` into rates of the last seconds."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._points: deque[_Point] = deque()

    def view(self) -> View:
        """Return the picture now. Rates are None until two points are known."""
        p = self._progress
        now = _Point(self._clock(), p.steps, p.samples, p.busy_ns, p.wait_ns)
        self._points.append(now)
        while len(self._points) > 2 and now.time_s - self._points[1].time_s >= WINDOW_S:
            self._points.popleft()
        first = self._points[0]
        elapsed = now.time_s - first.time_s
        if elapsed <= 0 or now.steps == first.steps:
            return View(p.steps, None, None, None, p.ready, p.done)
        busy = min(1.0, (now.busy_ns - first.busy_ns) / units.NS_PER_S / elapsed)
        waited = (now.wait_ns - first.wait_ns) / units.NS_PER_S / elapsed
        return View(
            p.steps,
            (now.samples - first.samples) / elapsed,
            busy,
            min(1.0 - busy, waited),  # a wait behind queued steps keeps no accelerator idle
            p.ready,
            p.done,
        )


def line(name: str, view: View) -> str:
    """Return one line: `ssd_4workers  step 120  201 samples/s  busy 98%  waiting for data 1.2%  8 ready`."""
    parts = [name, f"step {view.steps}"]
    parts.append(_rate(view))
    parts += [f"busy {_share(view.busy)}", f"waiting for data {_share(view.stall)}"]
    if view.ready is not None:
        parts.append(_ready(view.ready))
    if view.done is not None:
        parts.append(f"{units.percent(view.done)} done")
    return "  ".join(parts)


def _ready(batches: int) -> str:
    return "1 batch ready" if batches == 1 else f"{batches} batches ready"


def _rate(view: View) -> str:
    return "- samples/s" if view.samples_per_s is None else units.sample_rate(view.samples_per_s)


def _share(share: float | None) -> str:
    return "-" if share is None else units.percent(share)


@contextmanager
def shown(progress: Progress, console: Console | None = None) -> Iterator[None]:
    """Show `progress` on standard error while the block lasts."""
    console = console or Console(stderr=True)
    window = RecentRates(progress)
    window.view()  # the point from which the first rates count
    if console.is_terminal:
        with Live(
            get_renderable=lambda: _panel(progress, window.view()),
            console=console,
            refresh_per_second=1 / DRAW_EVERY_S,
            transient=True,
        ):
            yield
        return
    stopped = threading.Event()
    thread = threading.Thread(target=_print_lines, args=(stopped, progress, window, console), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _print_lines(stopped: threading.Event, progress: Progress, window: RecentRates, console: Console) -> None:
    while not stopped.wait(LINE_EVERY_S):
        console.print(line(progress.name, window.view()), highlight=False, soft_wrap=True)


def _panel(progress: Progress, view: View) -> Table:
    """Draw two bars and the figures next to them."""
    table = Table.grid(padding=(0, 1))
    table.add_row(Text(progress.name, style="bold"), _done(view), "")
    ready = "" if view.ready is None else _ready(view.ready)
    table.add_row("step", str(view.steps), f"{_rate(view)}  {ready}")
    table.add_row("accelerator busy", _bar(view.busy, "green"), _share(view.busy))
    table.add_row("waiting for data", _bar(view.stall, "red"), _share(view.stall))
    return table


def _done(view: View) -> str:
    return "" if view.done is None else f"{units.percent(view.done)} of the run"


def _bar(share: float | None, style: str, width: int = 40) -> Text:
    filled = round((share or 0.0) * width)
    return Text("█" * filled, style=style) + Text("░" * (width - filled), style="dim")
