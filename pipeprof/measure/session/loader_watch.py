"""Watches one loader of a session: gives its iterators their proxies, and takes the times of each step."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns, thread_time_ns
from typing import Any, Final, Protocol

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from pipeprof.measure.host.cgroups import memory_limit_bytes
from pipeprof.measure.host.stacks import state_of
from pipeprof.measure.probe import handover
from pipeprof.measure.probe import torch_hook as hook
from pipeprof.measure.probe.changes.cached import Cached
from pipeprof.measure.probe.changes.construct import made
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.levels import written_bytes
from pipeprof.measure.probe.counting.losses import HANDOVER, Loss, no_room, unpack
from pipeprof.measure.probe.proxies import (
    PIGGYBACK,
    Collate,
    Mode,
    Probe,
    WorkerInit,
    proxy_dataset,
    proxy_sampler,
)
from pipeprof.measure.probe.ring import Ring
from pipeprof.measure.probe.sampling.worker_aide import AIDE_RECORDS
from pipeprof.measure.probe.shared_memory import SharedBlock
from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.measure.progress import say
from pipeprof.measure.session.dataset_facts import file_of, has_set_epoch, splits_stream
from pipeprof.measure.session.hang import Waiting
from pipeprof.measure.session.lines.drain import AideReader
from pipeprof.measure.session.passes import Pass, RecordEvent
from pipeprof.measure.session.scratch import remove_unfinished
from pipeprof.measure.session.steps.finished import Finished
from pipeprof.measure.session.steps.steps import Steps
from pipeprof.record.meta import ChangedMeta, LoaderMeta
from pipeprof.record.names import counters
from pipeprof.record.schema import MAIN_PROCESS, MISSING, UNPROBED_FIRST
from pipeprof.units import size


class Recorder(Protocol):
    """The session that observes a loader."""

    kind: str
    every_sample: bool
    """True if every span is kept."""
    every_batch: bool
    """True if most batches are probed however much that costs."""
    ring_records: int
    """Records that a worker's ring holds."""
    lines: bool
    """True if the workers' lines are sampled."""
    steps: Steps

    @property
    def event(self) -> RecordEvent:
        """Return the recorder of events that happen once."""
        ...

    @property
    def active(self) -> bool:
        """Return True while the run goes on."""
        ...

    def add_source(self, source: IteratorWatch) -> None:
        """Drain the rings of `source` from now on, until it is gone."""
        ...

    def add_unseen(self, what: str) -> None:
        """Enter into `run.json` something that is not observed."""
        ...

    @property
    def note_warning(self) -> Callable[[str], None]:
        """Return a function that enters a warning into `run.json` with the next flush."""
        ...

    def hold(self) -> None:
        """Keep the run going for one iterator more."""
        ...

    def release(self) -> None:
        """Let the run end when all others are gone too."""
        ...


class LoaderWatch:
    """The observer of one loader."""

    def __init__(self, session: Recorder, loader: DataLoader[Any], number: int, name: str) -> None:
        self.session, self.number, self.name = session, number, name
        self.epoch = -1
        self.newest_iterator_ns = 0
        """Time at which the loader was last asked for an iterator."""
        self.iterated = False
        """True if it was iterated, or another loader instead of it."""
        self.facts = _facts(loader, number, name)
        self.dataset: Callable[[], Any] = _weakly(loader.dataset)
        may = session.kind != "bench" and not session.every_sample and not session.every_batch
        self.blocks = Blocks(UNPROBED_FIRST) if may else None
        """Decides which steps are unprobed, and without workers which batches; None if none is to be."""
        self.steps = 0
        """Steps that took its batches."""

    def was_rebuilt_as(self, loader: DataLoader[Any]) -> bool:
        """Return True if `loader` is iterated in place of ours, which never was: they share a data set."""
        return not self.iterated and loader.dataset is self.dataset()

    def iterate(self, loader: DataLoader[Any], make: Callable[[], Any]) -> Any:
        """Make the loader's iterator with our proxies in it."""
        if not self.session.active:
            return make()
        self.iterated = True
        watch = IteratorWatch(self, loader.num_workers, _mode(loader))
        began_ns, written = monotonic_ns(), written_bytes()
        with hook.disguised(loader, watch.parts(loader)):
            iterator = make()
        if watch.workers > 0:
            tally.add(counters.STARTUP_MAKE_NS, monotonic_ns() - began_ns)
            tally.add(counters.STARTUP_WRITTEN_BYTES, written_bytes() - written)
        self._watch(iterator, watch)
        return iterator

    def adopt(self, loader: DataLoader[Any], iterator: Any) -> None:
        """Watch an existing iterator that has none of our proxies: only its waits are observed."""
        watch = IteratorWatch(self, loader.num_workers, _mode(loader))
        watch.see_waits_alone("what its workers do: they had been started before")
        self.iterated = self._watch(iterator, watch)

    def _watch(self, iterator: Any, watch: IteratorWatch) -> bool:
        if hook.watch(iterator, watch):
            watch.made(iterator)
            return True
        self.session.add_unseen(f"{self.name}: the class of its iterators cannot be changed")
        return False


PINS: Final = "_pin_memory_thread"
PINNED: Final = "_data_queue"
"""torch's private names for the thread of an iterator that pins its batches, and for the queue of those that
it has pinned, seen in 2.6 to 2.15. Without them that thread's waits for the GIL are not observed."""
_numbers: Final = itertools.count(1)
"""Numbers of the iterators that this process has observed."""


class IteratorWatch:
    """Watches one torch iterator, over all its epochs if its workers persist."""

    def __init__(self, owner: LoaderWatch, workers: int, mode: Mode) -> None:
        self.owner, self.session = owner, owner.session
        self.loader_number = owner.number
        self.workers, self.mode = workers, mode
        self.ring = self._make_ring(max(1, workers), self.session.ring_records)
        self.finished: dict[int, Finished] = {}
        """By epoch, the batches that were finished and are not yet known to be taken."""
        self.epoch = -1
        self.gone = False
        self._counts_ready = self.workers > 0
        self._processes: list[Any] = []
        self._lost: set[int] = set()
        self._losses: dict[int, Loss] = {}
        """By worker, the first batch that it could not make or hand over."""
        self._taken = 0
        self._pass: Pass | None = None
        self._request_ns = self._waiting_ns = self._thread = 0
        self._after_unprobed_ns = 0
        """Time of ours from the take of the last unprobed step on: the next one's record holds it."""
        self._iterator: Callable[[], Any] = lambda: None
        self.private_bytes: dict[int, int] = {}
        """By worker, the memory that it had to itself at the last look."""
        self._created_ns = owner.newest_iterator_ns = monotonic_ns()
        self.number = next(_numbers)
        self.inbox = handover.open_inbox(self.number)
        self.handovers: dict[tuple[int, int], handover.Handover] = {}
        """Handovers by epoch and seq, of batches that are not yet written as steps."""
        self.sent: dict[tuple[int, int], tuple[int, int, int]] = {}
        """By epoch and seq: when a batch had been sent, the bytes of its pickle, and of the state in it."""
        samples_lines = self.session.lines and self.workers > 0
        self.aides = AideReader(Ring(self.workers, AIDE_RECORDS), owner.number) if samples_lines else None
        self._probe = self._make_probe(None if self.aides is None else self.aides.ring.block)

    def file_of(self, index: int) -> str | None:
        """Return the path of a sample's file, if its data set keeps a list of them."""
        return file_of(self.owner.dataset(), index, self.owner.facts.samples)

    def _make_ring(self, slots: int, records: int) -> Ring:
        return Ring(slots, records)

    def _make_probe(self, aides: SharedBlock | None) -> Probe:
        session = self.session
        probe = Probe(
            self.number,
            self.ring.block,
            session.ring_records,
            session.every_sample,
            self.mode,
            self.owner.epoch,
            aides,
        )
        if self.owner.blocks is not None and self.workers > 0:
            probe.unprobed_after = max(0, UNPROBED_FIRST - self.owner.steps) // self.workers
        return probe

    def parts(self, loader: DataLoader[Any]) -> dict[str, Any]:
        """Return the proxies to put in place of the loader's parts, by attribute."""
        if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
            # torch asks for their very class: only the loop's side is observed
            self.see_waits_alone("the inside of a DataPipe")
            return {}
        if not isinstance(loader, DataLoader):  # its parts are not torch's, though its iterator is
            self.see_waits_alone(f"the inside of a loader of {type(loader).__module__.partition('.')[0]}")
            return {}
        probe = self._probe
        sampler = "sampler" if loader.batch_sampler is None else "batch_sampler"
        parts = {
            "dataset": proxy_dataset(loader.dataset, probe),
            "collate_fn": Collate(loader.collate_fn, probe),
            sampler: proxy_sampler(getattr(loader, sampler), probe, self._begin_epoch),
        }
        if self.workers > 0:
            parts["worker_init_fn"] = WorkerInit(loader.worker_init_fn, probe)
        else:
            probe.start(MAIN_PROCESS)
        return parts

    def see_waits_alone(self, unseen: str) -> None:
        """Observe only the loop's side; `unseen` names what is not observed."""
        self._counts_ready = False
        self._begin_epoch(self._created_ns)
        self.session.add_unseen(f"{self.owner.name}: {unseen}")

    def made(self, iterator: Any) -> None:
        """Note that the iterator exists: its workers have been started."""
        self.session.add_source(self)
        self.session.hold()
        self._processes = hook.workers_of(iterator)
        self._iterator = weakref.ref(iterator)
        self._gone = weakref.finalize(iterator, self._mark_gone)
        self._gone.atexit = False
        pinning, lines = getattr(iterator, PINS, None), self.session.steps.lines
        pinned = getattr(iterator, PINNED, None)
        if lines is not None and isinstance(pinning, threading.Thread) and isinstance(pinned, queue.Queue):
            lines.pinning(pinning, pinned.empty)
        if self.workers > 0 and self.epoch >= 0:
            self.session.event("workers_ready", loader=self.loader_number, epoch=self.epoch)

    def _mark_gone(self) -> None:
        self.gone = True
        if self.session.active:
            self.record_lost_workers()
        self.session.release()

    def record_lost_workers(self) -> None:
        """Record once each worker that ended by itself: torch's error may come up anywhere in the loop."""
        for worker, process in enumerate(self._processes):
            if worker not in self._lost and _ended_itself(process, self.gone):
                self._lost.add(worker)
                pid = str(process.pid)
                self.session.event(
                    "worker_lost", loader=self.loader_number, epoch=self.epoch, worker=worker, detail=pid
                )
                self._record_kill(worker, process)
                self._record_unfinished(worker, process)
                if self.session.kind == "bench":
                    remove_unfinished(process.pid)

    def _record_unfinished(self, worker: int, process: Any) -> None:
        """Record the batch that a worker was making when it ended."""
        seq = None if worker in self._losses or worker >= self.ring.slots else self.ring.making(worker)
        if seq is not None:
            batch = f"batch {seq} of epoch {self.epoch}"
            unseen = "its sample and line are not observed: it ended before it could tell"
            who = f"{self.owner.name}: worker {worker} (process {process.pid})"
            room = f"; {no_room()}" if _ended_by(process, _BUS_ERROR) else ""
            sentence = f"{who} ended as it made {batch}; {unseen}{room}"
            self._record_loss(worker, self.epoch, sentence)

    def _record_loss(self, worker: int, epoch: int, sentence: str) -> None:
        self.session.event(
            "batch_lost", loader=self.loader_number, epoch=epoch, worker=worker, detail=sentence
        )
        self.session.note_warning(sentence)

    def _record_kill(self, worker: int, process: Any) -> None:
        """Record what is known of a worker that was ended by SIGKILL, such as by the kernel's OOM killer."""
        if _ended_by(process, signal.SIGKILL):
            had, limit = self.private_bytes.get(worker), memory_limit_bytes()
            known = "its memory was not observed" if had is None else f"it had {size(had)} to itself"
            allowed = "no control group limits memory" if limit is None else f"{size(limit)} are allowed"
            detail = f"process {process.pid}: {known}; {allowed}"
            self.session.event(
                "worker_killed", loader=self.loader_number, epoch=self.epoch, worker=worker, detail=detail
            )

    def record_losses(self) -> None:
        """Record the first batch that each worker could not make or hand over."""
        for worker in range(self.ring.slots if self.workers else 0):
            packed = b"" if worker in self._losses else self.ring.loss(worker)
            loss = unpack(packed) if packed else None
            if (
                loss is not None and self._losses.setdefault(worker, loss) is loss
            ):  # no other thread was first
                sentence = f"{self.owner.name}: worker {worker} {loss.sentence()}"
                self._record_loss(worker, loss.epoch, sentence)
                if loss.stage == HANDOVER:  # the others are raised
                    say(f"pipeprof: {sentence}")

    def _begin_epoch(self, asked_ns: int) -> int:
        start_ns = self._created_ns
        if self._pass is not None:
            self._pass.close()
            start_ns = asked_ns
        self.owner.epoch += 1
        self.epoch, self._taken = self.owner.epoch, 0
        self._pass = Pass(self.session.event, self.loader_number, self.epoch, start_ns)
        if self.session.active:
            self.session.steps.drawing()
        return self.epoch

    def dropped(self) -> None:
        """End the pass: the iterator is no longer held."""
        if self._pass is None:
            return
        if self.owner.newest_iterator_ns > max(self._created_ns, self._request_ns):
            self._pass.close()  # it was held, and not asked, until its loader had a new one
        else:
            self._pass.drop()

    def next(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """Time one `next(iterator)` of the loop."""
        turned_ns = monotonic_ns()
        session = self.session
        if not session.active:
            return self._next_unobserved(original, iterator)
        blocks, recorder = self.owner.blocks, self._probe.recorder
        unprobed = blocks is not None and blocks.begin() and session.steps.may_pass
        if self.workers == 0 and recorder is not None:
            recorder.unprobed_next = unprobed
        ready = self._count_ready(iterator) if self._counts_ready and not unprobed else None
        self._request_ns = request_ns = monotonic_ns()
        if unprobed:
            session.steps.passing()
        else:
            session.steps.requested(request_ns, recorder)
        self._thread, self._waiting_ns = threading.get_ident(), request_ns
        own_ns = monotonic_ns() - turned_ns + self._after_unprobed_ns if unprobed else MISSING
        timed = self.workers > 0 and not unprobed  # else `next` makes the batch, which has its own CPU time
        began_cpu_ns = thread_time_ns() if timed else MISSING
        try:
            data = original(iterator)
        except StopIteration:
            self._ended(request_ns)
            raise
        except BaseException:
            self._failed()
            raise
        finally:
            self._waiting_ns = 0
        take_ns = monotonic_ns()
        cpu_ns = thread_time_ns() - began_cpu_ns if timed else MISSING
        if self._pass is None or not self._pass.is_open:  # the iterator asks no sampler of ours
            self._begin_epoch(request_ns)
        data, key = self._keyed(data, iterator)
        self.owner.steps += 1
        if unprobed:
            session.steps.passed(self, self._taken, key, request_ns, take_ns, own_ns)
        else:
            session.steps.took(self, self._taken, key, request_ns, take_ns, ready, cpu_ns)
        if blocks is not None and blocks.thread_cpu_ns != MISSING:
            session.steps.note_cpu(blocks.thread_cpu_ns)
        self._taken += 1
        if unprobed:
            self._after_unprobed_ns = monotonic_ns() - take_ns
        return data

    def _count_ready(self, iterator: Any) -> int:
        """Count the batches that were finished and not yet taken."""
        return self.ring.finished(self.epoch) - self._taken

    def _keyed(self, data: Any, iterator: Any) -> tuple[Any, tuple[int, int] | None]:
        """Return the batch that was taken, and its epoch and seq; None if the order of takes shows it."""
        if self.mode.piggyback:
            return self._unwrap(data)
        if self.workers == 0 and self._probe.recorder is not None:
            return data, self._probe.recorder.key  # of the batch that this process has just made
        return data, None

    def _next_unobserved(self, original: Callable[[Any], Any], iterator: Any) -> Any:
        """Go on after the run: the proxies are still in the iterator, but record nothing."""
        try:
            return self._unwrap(original(iterator))[0]
        except BaseException:
            if self._probe.recorder is not None:
                self._probe.recorder.abandon()  # it would stay this thread's sink
            raise

    def _unwrap(self, data: Any) -> tuple[Any, tuple[int, int] | None]:
        # torch's pin thread turns a tuple into a list
        if type(data) in (tuple, list) and len(data) == 4 and type(data[0]) is str and data[0] == PIGGYBACK:
            return data[3], (data[1], data[2])
        return data, None

    def _ended(self, request_ns: int) -> None:
        if self._probe.recorder is not None:
            self._probe.recorder.abandon()
        if self._pass is not None:
            self._pass.exhaust(request_ns)
        self.session.steps.left_loop()

    def _failed(self) -> None:
        if self._probe.recorder is not None:
            self._probe.recorder.fail()
        self.record_losses()
        self.record_lost_workers()

    def sort_inbox(self) -> None:
        """Index the handovers that have arrived by their batches."""
        while self.inbox:
            arrived = handover.read(self.inbox.popleft())
            self.handovers[arrived.epoch, arrived.seq] = arrived
            sent_epoch, sent_seq, *sent = arrived.sent
            if (sent_epoch, sent_seq) in self.handovers:  # else it is written already, and nothing asks
                self.sent[sent_epoch, sent_seq] = (sent[0], sent[1], sent[2])
        for kept in (self.handovers, self.sent):
            while len(kept) > handover.MOST_KEPT:  # of batches that are never found to be taken
                kept.pop(next(iter(kept)))

    def way_of(self, epoch: int, seq: int) -> handover.Way:
        """Return, and forget, the times of a batch's way to this process."""
        arrived = self.handovers.pop((epoch, seq), None)
        if arrived is None:
            return handover.UNSEEN_WAY
        sent = self.sent.pop((epoch, seq), (MISSING, MISSING, MISSING))
        return arrived.pickled_ns, *sent, arrived.receive_start_ns, arrived.received_ns

    def forget_handovers_before(self, epoch: int) -> None:
        """Drop what is known of batches that were made for epochs before `epoch - 1` and never taken."""
        for kept in (self.handovers, self.sent):
            for key in [key for key in kept if key[0] < epoch - 1]:
                del kept[key]

    def close(self) -> None:
        """Stop draining: the iterator is gone, or the run is over."""
        self.ring.close()
        handover.close_inbox(self.number)
        if self.aides is not None:
            self.aides.ring.close()

    def waiting(self) -> Waiting | None:
        """Return how the loop waits for a batch now; None if it does not."""
        since_ns, iterator = self._waiting_ns, self._iterator()
        if since_ns == 0 or iterator is None:
            return None
        seq = holder = None
        tasks = iterator.__dict__.get("_task_info", {})
        if self.workers and not tasks:  # none is asked for: the workers are being shut down
            return None
        if self.workers and iterator.__dict__.get("_in_order", True):
            seq = iterator.__dict__.get("_rcvd_idx")
            task = tasks.get(seq)
            holder = task[0] if task else None
        pids = tuple(process.pid if is_running(process) else 0 for process in self._processes)
        owner = self.owner
        losses = dict(self._losses)
        return Waiting(
            since_ns, owner.name, owner.number, self.epoch, seq, holder, pids, self._thread, losses
        )

    @property
    def is_waited_for(self) -> bool:
        """Return True while its loop waits for a batch."""
        return self._waiting_ns != 0

    def busy_threads(self) -> list[tuple[int, int]]:
        """Return worker number and thread of each worker that makes a batch now."""
        threads = self.ring.threads()
        return [(slot, threads[slot]) for slot in range(self.ring.slots) if self.ring.busy(slot)]

    def threads(self) -> list[int]:
        """Return the thread of each worker."""
        return self.ring.threads()

    def let_go(self) -> None:
        """Stop recording in a forked child, which shares the parent's rings."""
        self._probe.recorder = None


def is_running(process: Any) -> bool:
    """Return True if a worker runs, without reaping its exit code, which torch reads itself."""
    return process.pid is not None and state_of(process.pid)[0] not in ("", "Z", "X")


def _weakly(dataset: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(dataset)
    except TypeError:  # a list, for one
        return lambda: None


def _ended_itself(process: Any, shut_down: bool) -> bool:
    """Return whether a worker was killed or failed.

    A worker that torch has not shut down is checked without reaping its exit code, which torch could then not
    find: it would need five seconds more to notice the loss.
    """
    if not shut_down:
        with suppress(ChildProcessError, AttributeError):  # reaped, or a fork server's; no waitid on Windows
            end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return end is not None and (end.si_code != os.CLD_EXITED or end.si_status != 0)
    return process.exitcode not in (None, 0, -signal.SIGTERM)  # torch terminates the slow to leave


_BUS_ERROR: Final = getattr(signal, "SIGBUS", None)
"""Windows has none."""


def _ended_by(process: Any, number: signal.Signals | None) -> bool:
    """Return True if a signal ended a worker, without reaping its exit code."""
    if number is None:
        return False
    with suppress(ChildProcessError, AttributeError):
        end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return end is not None and end.si_code != os.CLD_EXITED and end.si_status == number
    return bool(process.exitcode == -number)


def _mode(loader: DataLoader[Any]) -> Mode:
    iterable = isinstance(loader.dataset, IterableDataset)
    workers = loader.num_workers
    # In order, the batches of a map-style set are taken by number; else each must carry its own back. They
    # must also if a StatefulDataLoader resumes: it takes some that the loop never sees.
    resumes = getattr(loader, "next_iter_state", None) is not None
    piggyback = workers > 0 and (iterable or resumes or not getattr(loader, "in_order", True))
    return Mode(iterable, getattr(loader, "batch_sampler", None) is None, workers, piggyback)


def _facts(loader: DataLoader[Any], number: int, name: str) -> LoaderMeta:
    """Describe a loader for `run.json`."""
    iterable = isinstance(loader.dataset, IterableDataset)
    try:
        samples = None if iterable else len(loader.dataset)  # type: ignore[arg-type]
    except Exception:  # a length that is not known may be reported in any way
        samples = None
    context = getattr(loader, "multiprocessing_context", None) or multiprocessing
    # a loader of another library, which makes torch's iterators itself, may lack any of this
    plain: dict[str, Any] = {name: getattr(loader, name, None) for name in _PLAIN}
    how = made(loader)
    return LoaderMeta(
        id=number,
        name=name,
        workers=loader.num_workers,
        prefetch=getattr(loader, "prefetch_factor", None) if loader.num_workers else None,
        in_order=getattr(loader, "in_order", True),
        start_method=context.get_start_method() if loader.num_workers else None,
        dataset=_class_name(loader.dataset),
        iterable=iterable,
        sets_epoch=has_set_epoch(loader.dataset),
        splits_stream=splits_stream(loader.dataset, loader.worker_init_fn),
        samples=samples,
        **plain,
        file=how.site.file if how.site else None,
        line=how.site.line if how.site else None,
        column=how.site.column if how.site else None,
        in_library=how.site.in_library if how.site else None,
        changed=tuple(ChangedMeta(key, str(was), str(now)) for key, (was, now) in how.changed.items()),
    )


def _class_name(dataset: Any) -> str:
    if isinstance(dataset, Cached):  # or a class of ours that `--try cached` puts around it
        return f"{type(dataset.dataset).__name__}, cached"
    return type(dataset).__name__


_PLAIN: Final = ("batch_size", "pin_memory", "persistent_workers")
