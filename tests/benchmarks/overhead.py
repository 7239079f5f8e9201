"""What observing costs: a plain and an observed loader take turns, A B B A, in one process.

    python -m tests.benchmarks.overhead [jpeg|ram|ram0|lines|spans|size|memory ...] [--phase first|steady]
    python -m tests.benchmarks.overhead --peers

Counted is CPU time of the main process and of the workers, because wall time drowns in noise; turns of some
milliseconds, because the speed of a shared core changes by a factor of two within seconds. Printed is the
median of the rounds with a 95 % interval from a bootstrap: for pipeprof, and without workers for
torch.profiler and cProfile on the same loop, which do not see workers. `lines` compares a run that samples
lines with one that does not.

A loader is measured in two phases: `first`, its first 512 batches, all of which are probed, and `steady`,
what a long run has where that costs too much: one of `PROBED_OF` is probed, from the beginning here. Results
are kept in README.md beside this file.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset
from torchvision import datasets, transforms

import pipeprof
from pipeprof.measure.probe import unprobed
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.measure.probe.spans import activate, span
from pipeprof.measure.session import loader_watch
from pipeprof.measure.session.session import Session
from tests.benchmarks import peers

Tool = Callable[[], AbstractContextManager[Any]]
Round = Callable[[Callable[[], Any], int, int], dict[str, float]]
WARM_UP_TURNS = 3
PHASES: Final = ("first", "steady")


@contextmanager
def in_phase(phase: str) -> Iterator[None]:
    """Probe all batches of the loaders made meanwhile, or few as in a long run, in their workers too."""
    first = 1 << 20 if phase == "first" else 0
    plan = unprobed.FULL if phase == "first" else unprobed.THIN
    with patch.object(loader_watch, "UNPROBED_FIRST", first), patch.object(unprobed, "FULL", plan):
        yield


class Rows(Dataset[Any]):
    """In-RAM tensors: almost no work to hide in."""

    def __init__(self, length: int) -> None:
        self.rows, self.length = torch.zeros(1024, 8), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.rows[index % 1024]


def images(folder: Path, count: int) -> datasets.ImageFolder:
    """JPEGs of ImageNet's size: a smooth field with some noise comes to about 110 KB."""
    (folder / "class").mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + random.integers(-18, 18, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "class" / f"{number}.jpg", quality=90)
    steps = [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return datasets.ImageFolder(str(folder), transform=transforms.Compose(steps))


def thread_cpu_ns(thread: Path) -> int:
    return int((thread / "schedstat").read_text().split()[0])


def process_cpu_ns(pid: int) -> int:
    return sum(thread_cpu_ns(thread) for thread in Path(f"/proc/{pid}/task").iterdir())


def own_threads() -> set[int]:
    """The threads of pipeprof in this process."""
    ours = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("pipeprof")]
    return {number for number in ours if number is not None}


def cpu_ns_of(threads: set[int]) -> int:
    return sum(thread_cpu_ns(Path(f"/proc/self/task/{number}")) for number in threads)


def flush_cpu_ns() -> int:
    """CPU time of pipeprof's own threads."""
    return cpu_ns_of(own_threads())


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


class Side:
    """One of two loaders that take turns: what it costs its thread in the main process, and its workers."""

    def __init__(self, loader: Any, tool: Tool = nullcontext) -> None:
        before = children()
        torch.manual_seed(0)  # both sides draw the same crops
        self.batches, self.tool = iter(loader), tool
        self.workers = children() - before
        self.turns_ns: list[int] = []

    def turn(self, batches: int) -> None:
        with self.tool():  # its start and its end are not counted
            before = time.thread_time_ns()
            for _ in range(batches):
                next(self.batches)
            self.turns_ns.append(time.thread_time_ns() - before)

    def workers_ns(self) -> int:
        return sum(process_cpu_ns(pid) for pid in self.workers)


def take_turns(
    plain: Side, other: Side, turns: int, batches: int, own_ns: Callable[[], int] = flush_cpu_ns
) -> dict[str, float]:
    """One round, once both run: CPU nanoseconds a batch of the plain one, and what the other takes more.

    `own_ns` is what the threads of pipeprof take for the other one alone.
    """
    for side in (plain, other) * WARM_UP_TURNS:
        side.turn(batches)
    warmed_up = len(plain.turns_ns)
    flush, workers = own_ns(), [side.workers_ns() for side in (plain, other)]
    for number in range(turns):
        for side in (plain, other) if number % 2 else (other, plain):
            side.turn(batches)
    each = turns * batches
    flush = (own_ns() - flush) / each
    of_plain, of_other = (
        (side.workers_ns() - n) / each for side, n in zip((plain, other), workers, strict=True)
    )
    main, more = (sum(side.turns_ns[warmed_up:]) / each for side in (plain, other))
    return {
        "plain": main + of_plain,
        "main": more - main + flush,
        "flush": flush,
        "workers": of_other - of_plain,
    }


def beside_pipeprof(make: Callable[[], Any], turns: int, batches: int) -> dict[str, float]:
    return in_both_orders(lambda other_first: _pipeprof_turn(make, turns, batches, other_first))


def with_lines_beside_without(make: Callable[[], Any], turns: int, batches: int) -> dict[str, float]:
    """The plain side of these rounds is observed, without lines."""
    return in_both_orders(lambda other_first: _lines_turn(make, turns, batches, other_first))


def in_both_orders(one_round: Callable[[bool], dict[str, float]]) -> dict[str, float]:
    """Of two sides that are the same, the one made second costs some percent more.

    So each is made first once, and the means are taken.
    """
    one, two = one_round(False), one_round(True)
    return {part: (one[part] + two[part]) / 2 for part in one}


def _pipeprof_turn(
    make: Callable[[], Any], turns: int, batches: int, observed_first: bool
) -> dict[str, float]:
    """pipeprof's threads run on through the plain side's turns, as no loop would have it.

    What they take for a batch is therefore counted in as many turns again, which the observed side has alone.
    """
    gc.collect()
    plain = None if observed_first else Side(make())
    loader = make()
    with pipeprof.profile(loader):
        observed = Side(loader)
        taken = take_turns(plain or Side(make()), observed, turns, batches)
        before = flush_cpu_ns()
        for _ in range(turns):
            observed.turn(batches)
        alone = (flush_cpu_ns() - before) / (turns * batches)
    return taken | {"flush": alone, "main": taken["main"] - taken["flush"] + alone}


def _lines_turn(make: Callable[[], Any], turns: int, batches: int, lines_first: bool) -> dict[str, float]:
    gc.collect()
    one, other = make(), make()
    with pipeprof.profile(one, lines=lines_first):
        first = Side(one)
        of_first = own_threads()
        with pipeprof.profile(other, lines=not lines_first):
            second = Side(other)
            of_second = own_threads() - of_first
            sides, threads = (first, second), (of_first, of_second)
            if lines_first:
                sides, threads = (second, first), (of_second, of_first)
            more = lambda: cpu_ns_of(threads[1]) - cpu_ns_of(threads[0])  # noqa: E731
            return take_turns(*sides, turns, batches, more)


def beside(tool: Tool) -> Round:
    def one_round(make: Callable[[], Any], turns: int, batches: int) -> dict[str, float]:
        gc.collect()
        return take_turns(Side(make()), Side(make(), tool), turns, batches)

    return one_round


def with_phase(phase: str) -> Round:
    def one_round(make: Callable[[], Any], turns: int, batches: int) -> dict[str, float]:
        with in_phase(phase):
            return beside_pipeprof(make, turns, batches)

    return one_round


def torch_profiler() -> Any:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median, and its 95 % interval by bootstrap."""
    random = np.random.default_rng(0)
    medians = np.median(random.choice(values, (4000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def compare(
    name: str,
    make: Callable[[], Any],
    turns: int,
    batches: int,
    samples: int,
    rounds: int,
    tools: dict[str, Round] | None = None,
    phases: tuple[str, ...] = PHASES,
) -> None:
    """`turns` of so many `batches`, each of `samples`."""
    tools = tools or {f"pipeprof {phase}": with_phase(phase) for phase in phases}
    if make().num_workers == 0:
        tools |= {"torch.profiler": beside(torch_profiler), "cProfile": beside(cProfile.Profile)}
    for tool, one_round in tools.items():
        found = [one_round(make, turns, batches) for _ in range(rounds)]
        ratio = interval([1 + (r["main"] + r["workers"]) / r["plain"] for r in found])
        main_us, flush_us = (interval([r[part] / 1e3 for r in found]) for part in ("main", "flush"))
        sample_us = interval([(r["main"] + r["workers"]) / samples / 1e3 for r in found])
        print(f"{name:20} {tool:15} CPU x {shown(ratio, '.3f')}  main {shown(main_us, '.1f')} us/batch"
              f" (flush thread {flush_us[0]:.1f})  all {shown(sample_us, '.2f')} us/sample"
              f"  plain {np.median([r['plain'] for r in found]) / 1e3:.0f} us/batch", flush=True)  # fmt: skip


def shown(value: tuple[float, float, float], form: str) -> str:
    return f"{value[0]:{form}} [{value[1]:{form}}, {value[2]:{form}}]"


def jpeg(rounds: int, phases: tuple[str, ...] = PHASES) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = ConcatDataset([images(Path(folder), 256)] * 12)
        compare(
            "JPEG, 2 workers", lambda: DataLoader(data, 32, num_workers=2), 20, 2, 32, rounds, None, phases
        )


def ram(rounds: int, phases: tuple[str, ...] = PHASES, workers: int = 2) -> None:
    data = Rows(64 * 3500)
    name = f"in RAM, {workers} workers"
    compare(name, lambda: DataLoader(data, 64, num_workers=workers), 150, 10, 64, rounds, None, phases)


def lines(rounds: int) -> None:
    """What lines add to a run that is observed, with 2 workers: JPEGs, and small batches from memory."""
    tools = {"lines": with_lines_beside_without}
    with tempfile.TemporaryDirectory() as folder:
        data = ConcatDataset([images(Path(folder), 256)] * 12)
        # long rounds: the threads of either session have more to do in their first second
        compare("JPEG, 2 workers", lambda: DataLoader(data, 32, num_workers=2), 40, 2, 32, rounds, tools)
    rows = Rows(64 * 2000)
    compare("in RAM, 2 workers", lambda: DataLoader(rows, 64, num_workers=2), 150, 10, 64, rounds, tools)


def spans(rounds: int) -> None:
    """The cost of one span in the default mix of plain and detailed batches, and where nobody listens."""
    ring = Ring(1, 1 << 16)
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    costs, idle = [], []
    for _ in range(rounds):
        before = time.thread_time_ns()
        for seq in range(64):
            recorder.begin(0, seq, 0)
            for _ in range(512):
                with span("decode"):
                    pass
            recorder.finish(0)
        costs.append((time.thread_time_ns() - before) / 64 / 512)
        ring.drain(0)
        activate(None)
        before = time.thread_time_ns()
        for _ in range(10_000):
            with pipeprof.stage("x"):
                pass
        idle.append((time.thread_time_ns() - before) / 10_000)
    ring.close()
    print(
        f"a span {np.median(costs):.0f} ns (best {min(costs):.0f}); without a probe {np.median(idle):.0f} ns"
    )


class EightOps(Dataset[Any]):
    """Eight marked steps a sample, about as long as they are in an image pipeline."""

    def __len__(self) -> int:
        return 64 * 2000

    def __getitem__(self, index: int) -> int:
        for number in range(8):
            with pipeprof.stage(f"op{number}"):
                if index % 7 == number:
                    sum(range(20))
        return index


def size(_: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with Session(Path(folder) / "run") as session:
            for _ in session.loader(EightOps(), batch_size=64, num_workers=2):
                pass
        sizes = {path.name: path.stat().st_size for path in (Path(folder) / "run").glob("*.parquet")}
    print(f"{sum(sizes.values()) / 2000:.0f} bytes a batch in Parquet: {json.dumps(sizes)}")


def memory(_: int, batches: int = 200_000) -> None:
    """Resident memory of the main process and its worker, over one long epoch."""
    data = TensorDataset(torch.zeros(batches * 2, 1))
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "run") as session:
        loader = session.loader(data, batch_size=2, num_workers=1)
        for step, _ in enumerate(loader, 1):
            if step % (batches // 10) == 0:
                main = psutil.Process()
                resident = [main, *main.children()]
                kib = ", ".join(f"{p.memory_info().rss // 1024} KiB" for p in resident)
                print(f"{step:8} batches: {kib}", flush=True)


IN_PHASES: Final = frozenset(("jpeg", "ram", "ram0"))
PARTS: dict[str, Callable[..., None]] = {
    "jpeg": jpeg,
    "ram": ram,
    "lines": lines,
    "ram0": partial(ram, workers=0),
    "spans": spans,
    "size": size,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is given"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--phase", choices=PHASES, help="of jpeg, ram and ram0; both by default")
    parser.add_argument(
        "--peers", action="store_true", help="other profilers on the same loops: see peers.py"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the peers' loops")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}")
    if options.peers:
        peers.main(options.rounds, scale=options.scale)
        return
    torch.set_num_threads(1)
    for part in options.parts or PARTS:
        phases = (options.phase,) if options.phase else PHASES
        PARTS[part](options.rounds, **({"phases": phases} if part in IN_PHASES else {}))


if __name__ == "__main__":
    main()
