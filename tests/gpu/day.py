"""Runs items one after the other, each in a process of its own, with a limit of time and a result file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from pipeprof.measure.device.contract import Device
from pipeprof.measure.device.here import available_device, built_for, installed
from tests.fake_device import FakeDevice

WHOLE_S: Final = 480.0
"""Time for all items together: what is left of it limits the later ones."""

Figures = dict[str, Any]
Status = Literal["held", "missed", "failed", "out of time", "no time left"]


@dataclass(frozen=True)
class Place:
    """Where an item runs: its device, a directory of its own, and how much it does."""

    device: Device
    directory: Path
    small: bool
    """True on the device that is not there: as little as goes through every line."""


@dataclass(frozen=True)
class Item:
    """One thing to find out. `run` returns figures; `held`, where it is among them, says if a bound holds."""

    name: str
    about: str
    limit_s: float
    run: Callable[[Place], Figures]
    installs: bool = True
    """False if it looks for the device by itself."""


@dataclass(frozen=True)
class Outcome:
    """What an item came to."""

    item: Item
    status: Status
    seconds: float
    figures: Figures
    error: str = ""

    @property
    def good(self) -> bool:
        return self.status == "held"


def fake() -> FakeDevice:
    """The device that is not there, as the items are given it."""
    return FakeDevice(slowness=3.0, pinned=True, drift=20e-6)


def there() -> bool:
    """Return whether torch sees a device here. A copy of this process asks: asking opens the driver."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=lambda: os._exit(0 if available_device() is not None else 1))
    process.start()
    process.join()
    return process.exitcode == 0


def take(
    items: Sequence[Item],
    out: Path,
    on_fake: bool,
    say: Callable[[str], None],
    whole_s: float = WHOLE_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Run `items`; each leaves `NAME.json` in `out` as soon as it has ended, and the rest goes on."""
    out.mkdir(parents=True, exist_ok=True)
    began, outcomes = clock(), list[Outcome]()
    for number, item in enumerate(items, 1):
        left = whole_s - (clock() - began)
        say(f"[{number}/{len(items)}] {item.name}: {item.about}")
        outcome = _run(item, out, on_fake, min(item.limit_s, left))
        outcomes.append(outcome)
        _keep(outcome, out)
        say(f"  {outcome.status} after {outcome.seconds:.1f} s {outcome.error}".rstrip())
    (out / "summary.md").write_text(table(outcomes))
    return outcomes


def _run(item: Item, out: Path, on_fake: bool, limit_s: float) -> Outcome:
    """Run one item in a copy of this process, which has touched no device, and end it with all it started."""
    if limit_s <= 0:
        return Outcome(item, "no time left", 0.0, {})
    context = multiprocessing.get_context("fork")
    theirs, ours = context.Pipe(duplex=False)
    began = time.monotonic()
    process = context.Process(target=_inside, args=(item, out / item.name, on_fake, ours))
    process.start()
    ours.close()
    told: tuple[str, Any] = ("out of time", f"after its {limit_s:.0f} s")
    if theirs.poll(limit_s):
        try:
            told = theirs.recv()
        except EOFError:  # it was killed, or left by `os._exit`
            process.join(5)
            told = ("failed", f"its process ended with {process.exitcode}")
    assert process.pid is not None
    process.join(5 if told[0] != "out of time" else 0)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    seconds = time.monotonic() - began
    if told[0] != "held":
        return Outcome(item, told[0], seconds, {}, told[1])  # type: ignore[arg-type]
    missed = told[1].get("held") is False
    return Outcome(item, "missed" if missed else "held", seconds, told[1])


def _inside(item: Item, directory: Path, on_fake: bool, answer: Any) -> None:
    os.setsid()
    directory.mkdir(parents=True, exist_ok=True)
    log = os.open(directory / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False, buffering=1) for fd in (1, 2))  # noqa: SIM115
    os.environ["PIPEPROF_CACHE"] = str(directory.parent / "cache")
    try:
        if on_fake:
            torch.set_num_threads(1)  # the threads of the parent's pool did not come along
        device = fake() if on_fake else built_for()  # whoever asks whether it is there cannot fork any more
        assert device is not None
        place = Place(device, directory, on_fake)
        if item.installs and on_fake:
            with installed(device):
                figures = item.run(place)
        else:
            figures = item.run(place)
        answer.send(("held", figures))
    except BaseException as error:
        traceback.print_exc()
        answer.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        answer.close()


def _keep(outcome: Outcome, out: Path) -> None:
    content = {
        "item": outcome.item.name,
        "about": outcome.item.about,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 1),
        "limit_s": outcome.item.limit_s,
        "error": outcome.error or None,
        "figures": outcome.figures,
    }
    (out / f"{outcome.item.name}.json").write_text(json.dumps(content, indent=1, default=str) + "\n")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| item | outcome | s | figures |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        plain = {
            key: value
            for key, value in outcome.figures.items()
            if isinstance(value, (int, float, str, bool)) and key != "held"
        }
        said = "; ".join(f"{key} {_short(value)}" for key, value in plain.items()) or outcome.error
        lines.append(f"| {outcome.item.name} | {outcome.status} | {outcome.seconds:.1f} | {said} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
