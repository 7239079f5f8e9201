"""Kills a program at one moment of its life, and looks at what it has left."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

import psutil
import pyarrow.parquet as pq

from pipeprof.errors import PipeprofError
from pipeprof.record import reader
from tests.crash.programs import ATTACHING, LOOP_S, PROGRAMS, RECORDING, TRAINED, logged
from tests.forked import Program, verb
from tests.measure.attach.jobs import may_trace
from tests.timing import OtherPrograms

VICTIMS: Final = ("main", "group", "worker")
ORPHAN, MEMORY = "orphan", "shared memory"
"""How the faults of what is left begin."""
ORPHANS_S: Final = 12.0
"""torch's workers look for their parent every five seconds."""
_BEFORE_S: Final = 1.2
"""Time before the kill in which it is looked whether the program had a core."""


@dataclass
class Kill:
    """One kill and what it left."""

    program: str
    victim: str
    moment_s: float
    alive: bool = False
    """True where the victim was there when the signal was sent."""
    lost_s: float | None = None
    """From the last step that is in the record to the last that the loop had taken; None without a step."""
    starved_s: float = 0.0
    """Longest time that a thread of the program waited for a core, in the 1.2 s before the kill."""
    others_cores: float = 0.0
    faults: list[str] = field(default_factory=list)
    """All that must not be: an unreadable record, half a file, an orphan, shared memory."""
    unprobed: int = 0
    """Batches in the record that were made unprobed."""
    temporary_files: int = 0
    """Hidden files that were being written; nothing reads them."""
    struck: set[int] = field(default_factory=set)
    """Process ids that the signal went to."""
    unfinished_blocks: int = 0
    """Names in /dev/shm of blocks that torch was making in a process when it was killed: it leaves them in a
    job without us too. Where a worker of `run` is killed, we remove them."""


@dataclass
class _Pending:
    kill: Kill
    session: int
    processes: list[psutil.Process]
    place: Path
    due_s: float


class Harness:
    """Kills programs one after the other, in directories below `root`. Call `finish` at the end."""

    def __init__(self, root: Path, orphans_s: float = ORPHANS_S) -> None:
        self.root, self._orphans_s = root, orphans_s
        self.kills: list[Kill] = []
        self._pending: list[_Pending] = []
        self._names = _names()

    def lifetime_s(self, name: str) -> float:
        """Run a program to its end; return how long that took. Raises where it does not work."""
        place = self._place()
        began = time.monotonic()
        done = Program(PROGRAMS[name](place), place).finished()
        assert done.returncode == 0, done.stderr
        lived_s = time.monotonic() - began
        shutil.rmtree(place)
        return lived_s

    def kill(self, name: str, victim: str, moment_s: float, from_first_step: bool = False) -> Kill:
        """Start a program, send SIGKILL to a part of it `moment_s` after, and look at what is left.

        With `from_first_step` the time is counted from the first step of its loop on.
        """
        kill = Kill(name, victim, round(moment_s, 3))
        place, others = self._place(), OtherPrograms()
        begun = time.monotonic()
        program = Program(PROGRAMS[name](place), place)
        if from_first_step:
            while program.alive and logged(place / "log")[0] == 0:
                time.sleep(0.02)
            begun = time.monotonic()
        time.sleep(max(0.0, moment_s - _BEFORE_S))
        looked_at = _family(program.pid)[:2] if name == ATTACHING else _family(program.pid)[:1]
        before = _waited_s(looked_at)
        time.sleep(max(0.0, begun + moment_s - time.monotonic()))
        after = _waited_s(looked_at)
        kill.starved_s = max((after[t] - before.get(t, 0.0) for t in after), default=0.0)
        processes = _family(program.pid)
        kill.alive = self._strike(kill, program, processes)
        struck_ns = time.monotonic_ns()
        done = program.finished()
        if name == ATTACHING:
            _check_job(kill, processes, place)
        kill.others_cores = others.cores()
        if has_our_traceback(done.stderr) and victim != "worker":
            # a lost worker is the script's own error; torch's threads in workers report a lost main process
            kill.faults.append(f"traceback: {done.stderr[-2000:]}")
        if name in RECORDING:
            _check_record(kill, place, struck_ns)
        else:
            _check_again(kill, name, place)
        _check_files(kill, place)
        due_s = time.monotonic() + self._orphans_s
        self._pending.append(_Pending(kill, program.pid, processes, place, due_s))
        self.kills.append(kill)
        self._settle()
        return kill

    def _strike(self, kill: Kill, program: Program, processes: list[psutil.Process]) -> bool:
        alive = program.alive
        with suppress(ProcessLookupError):
            if kill.victim == "group":
                kill.struck = {each.pid for each in processes}
                os.killpg(program.pid, signal.SIGKILL)
            elif kill.victim == "worker" and processes:
                kill.struck = {processes[-1].pid}
                os.kill(processes[-1].pid, signal.SIGKILL)
            else:
                kill.victim, kill.struck = "main", {program.pid}
                os.kill(program.pid, signal.SIGKILL)
        return alive

    def _place(self) -> Path:
        place = Path(tempfile.mkdtemp(dir=self.root))
        (place / "log").write_bytes(bytes(24))
        return place

    def finish(self) -> None:
        """Wait until no orphan may be left of any kill."""
        while self._pending:
            time.sleep(max(0.0, self._pending[0].due_s - time.monotonic()))
            self._settle()

    def names_left(self) -> list[str]:
        """Return the names that have come to /dev/shm since the harness was made and have no living owner.

        Those of other programs are among them, unless /dev/shm is this harness's alone.
        """
        return [name for name in sorted(_names() - self._names) if not _owner_lives(name)]

    def _settle(self) -> None:
        while self._pending and self._pending[0].due_s <= time.monotonic():
            one = self._pending.pop(0)
            orphans = {process for process in [*one.processes, *_of_session(one.session)] if _runs(process)}
            one.kill.faults += [f"{ORPHAN}: {process.pid}" for process in orphans]
            for process in orphans:
                process.kill()
            names = [p.name for each in one.processes for p in Path("/dev/shm").glob(f"*_{each.pid}_*")]
            ours = [name for name in names if not _was_begun_by_torch(name, one.kill)]
            one.kill.unfinished_blocks = len(names) - len(ours)
            one.kill.faults += [f"{MEMORY}: {name}" for name in ours]
            shutil.rmtree(one.place, ignore_errors=True)


def has_our_traceback(text: str) -> bool:
    """Tell whether a traceback has a frame of ours: threads of torch's workers report a lost main process."""
    frames = text.partition("Traceback")[2]
    return re.search(r"pipeprof/(analyse|cli|measure|record|report|simulate|wrapper)", frames) is not None


def random_kills(harness: Harness, kills: int, seed: int, most_s: float = inf) -> None:
    """Kill `kills` times, at random moments of random programs; half of all loops are killed as a whole.

    No kill begins later than `most_s` seconds from now.
    """
    end_s = time.monotonic() + most_s
    rng = random.Random(seed)
    attaches = may_trace()
    programs = [name for name in PROGRAMS if attaches or "attach" not in name]
    lives = {name: harness.lifetime_s(name) for name in programs}
    recording = [name for name in programs if name in RECORDING]
    for _ in range(kills):
        if time.monotonic() > end_s:
            break
        name = rng.choice([*recording, *recording, *programs])
        victim = rng.choice(("main", "main", "group", "group", "worker")) if name in RECORDING else "main"
        kill = harness.kill(name, victim, rng.uniform(0.0, lives[name]))
        print(kill, file=sys.stderr, flush=True)
    harness.finish()


def _family(pid: int) -> list[psutil.Process]:
    """Return the process and its descendants, itself last but for its workers."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _of_session(session: int) -> list[psutil.Process]:
    """Return the processes of a program's session: those too whose parent had ended before the kill."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) == session:
                found.append(process)
    return found


def _was_begun_by_torch(name: str, kill: Kill) -> bool:
    """Tell whether a name is of a block that torch made in a killed process, which nobody removes."""
    removed = kill.program == "run" and kill.victim == "worker"
    return not removed and any(name.startswith(f"torch_{pid}_") for pid in kill.struck)


def _names() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


_MOST_PID: Final = 1 << 22
"""Linux's bound on a process's number."""


def _owner_lives(name: str) -> bool:
    """Tell whether a process lives whose number is in a name, as torch writes it: `torch_PID_...`."""
    numbers = [int(number) for number in re.findall(r"(?<=_)\d+(?=_)", name)]  # torch's last one is random
    return any(number < _MOST_PID and psutil.pid_exists(number) for number in numbers)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _waited_s(processes: list[psutil.Process]) -> dict[str, float]:
    """Return how long each thread of some processes has waited for a core, in seconds."""
    waited = {}
    for process in processes:
        with suppress(OSError):
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError, ValueError):
                    waited[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return waited


def _check_job(kill: Kill, processes: list[psutil.Process], place: Path) -> None:
    """Wait for the job to end; the death of a pipeprof outside must not have changed its way."""
    deadline = time.monotonic() + LOOP_S + ORPHANS_S
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    if kill.victim == "main" and len(processes) > 1 and not (place / TRAINED).exists():
        kill.faults.append("the job did not come to its end")


def _check_record(kill: Kill, place: Path, struck_ns: int) -> None:
    """Read the record as `report` does, and compare its steps with those of the loop up to the kill."""
    out = place / "run"
    reported = Program(verb("report", "--json", str(out)), place).finished()
    visible = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    taken, first_ns, last_ns = logged(place / "log")
    if "run.json" not in visible:
        if reported.returncode != 2 or "Traceback" in reported.stderr or visible or taken:
            kill.faults.append(f"no run.json after {taken} steps, and {visible}: {reported.stderr[-300:]}")
        return
    try:
        answer = json.loads(reported.stdout)
        run = reader.load(out)
        steps = run.table("steps")
    except (ValueError, PipeprofError) as error:
        kill.faults.append(f"unreadable: {error} {reported.stderr[-300:]}")
        return
    if reported.returncode != 0 or answer["status"] == "running":
        kill.faults.append(f"report: rc {reported.returncode}, status {answer['status']}")
    if steps["step"].to_pylist() != list(range(len(steps))):
        kill.faults.append("steps are missing in the middle")
    _check_unprobed(kill, run)
    if taken:
        recorded_ns = steps["take_ns"][-1].as_py() if len(steps) else first_ns
        kill.lost_s = max(0.0, (min(last_ns, struck_ns) - recorded_ns) / 1e9)


def _check_unprobed(kill: Kill, run: reader.Run) -> None:
    """Look whether unprobed batches are marked as such, whole, and have no inside."""
    unprobed = [row for row in run.table("batches").to_pylist() if row["unprobed"]]
    keys = {(row["epoch"], row["seq"]) for row in unprobed}
    inside = [row for row in run.table("stages").to_pylist() if row["scope"] == 0]
    if any((row["epoch"], row["seq"]) in keys for row in inside):
        kill.faults.append("unprobed batches have stages")
    if any(row["samples"] is None or row["cpu_ns"] is not None for row in unprobed):
        kill.faults.append("unprobed batches are not what they are")
    kill.unprobed = len(unprobed)


def _check_again(kill: Kill, name: str, place: Path) -> None:
    """Run the verb once more: what the killed one left must not stand in its way."""
    written = place / ("tables" if name == "export parquet" else "none")
    if written.exists():
        return  # it was whole, and the verb says that it is there
    words = {"report": ("report", "run"), "merge": ("merge", "job")}
    _, _, form = name.partition(" ")
    out = {"perfetto": "trace.pftrace", "parquet": "tables"}.get(form, "")
    command = words.get(name, ("export", "run", "--to", form, "--out", out))
    again = Program(verb(*command), place).finished()
    if again.returncode != 0:
        kill.faults.append(f"again: rc {again.returncode}: {again.stderr[-300:]}")


def _check_files(kill: Kill, place: Path) -> None:
    """Look for half a file among those that somebody would read."""
    for path in place.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
        if hidden:
            kill.temporary_files += path.is_file()
        elif path.is_file() and not _is_whole(path):
            kill.faults.append(f"half a file: {path.relative_to(place)}")


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            pq.ParquetFile(path).read()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".html":
            return path.read_text().rstrip().endswith("</html>")
        elif path.suffix == ".pftrace":
            return path.stat().st_size > 0
    except Exception:
        return False
    return True


def table(kills: list[Kill]) -> str:
    """Return the kills as a table in Markdown, a row for each program, and one for all."""
    head = (
        "| program | kills | alive when hit | main / group / worker "
        "| unreadable or half | orphans | shared memory | worst loss s | worst loss with a core s "
        "| temporary files | torch's unfinished blocks |\n| --- " + "| --- " * 10 + "|"
    )
    names = dict.fromkeys(kill.program for kill in kills)
    rows = [_row(name, [kill for kill in kills if kill.program == name]) for name in names]
    return "\n".join([head, *rows, _row("all", kills)])


STARVED_S: Final = 0.1
"""Waiting for a core from which on a loss says more of the machine than of the record."""


def _row(name: str, kills: list[Kill]) -> str:
    victims = " / ".join(str(sum(kill.victim == victim for kill in kills)) for victim in VICTIMS)
    faults = [fault for kill in kills for fault in kill.faults]
    orphans, memory = (sum(fault.startswith(word) for fault in faults) for word in (ORPHAN, MEMORY))
    lost = [kill.lost_s for kill in kills if kill.lost_s is not None]
    fed = [kill.lost_s for kill in kills if kill.lost_s is not None and kill.starved_s < STARVED_S]
    cells = (
        name, len(kills), sum(kill.alive for kill in kills), victims,
        len(faults) - orphans - memory, orphans, memory,
        f"{max(lost):.2f}" if lost else "–", f"{max(fed):.2f} of {len(fed)}" if fed else "–",
        sum(kill.temporary_files for kill in kills), sum(kill.unfinished_blocks for kill in kills),
    )  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
