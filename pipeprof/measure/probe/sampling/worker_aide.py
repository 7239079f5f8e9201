"""Runs alongside the thread that makes batches in a worker: samples its lines, and sends them and the counts.

It writes a slot of its own, in a ring of its own, because a slot has one writer.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from multiprocessing.util import Finalize
from types import CodeType
from typing import Final

from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.sending import send_counts
from pipeprof.measure.probe.layout import NODE_TEXT_BYTES
from pipeprof.measure.probe.ring import Slot
from pipeprof.measure.probe.sampling.call_tree import CallTree, Node, Sampled
from pipeprof.measure.probe.sampling.cpu_signal import CpuSampler, make_tree
from pipeprof.measure.probe.sampling.line_sampler import LineSampler, is_ours
from pipeprof.measure.probe.spans import GETITEM, NOWHERE
from pipeprof.record.names import counters

AIDE_RECORDS: Final = 4096
"""Records of an aide's slot: about 20 call paths and 50 stacks a second need some 150."""
_MOST_UNSENT: Final = 10_000


class WorkerAide:
    """Samples the thread that `recorder` records, and writes to `slot` once a second."""

    def __init__(self, recorder: BatchRecorder, slot: Slot) -> None:
        self._recorder, self._slot = recorder, slot
        self._unsent: deque[Node] = deque(maxlen=_MOST_UNSENT)
        self._unsent_samples: deque[Sampled] = deque(maxlen=_MOST_UNSENT)
        self._own_cpu_ns = 0
        self._at_exit: Finalize | None = None
        self._computing = CpuSampler(self._stage, make_tree(is_edge, is_ours))
        self._computing.start()
        self._sampler = LineSampler(
            threading.get_ident(),
            self._stage,
            self._send,
            is_edge,
            cpu_is_sampled=self._computing.is_running,
            queued=self._computing.queued,
            is_asked=lambda: slot.last_asked,
        )
        self._has_sent_last = False

    def start(self) -> None:
        """Begin to sample, until the worker ends or the slot is no longer drained."""
        self._sampler.start()
        with suppress(Exception):  # the last second's samples are not worth an error at exit
            self._at_exit = Finalize(None, self.stop, exitpriority=10)

    def stop(self) -> None:
        """Stop sampling; what was counted is sent."""
        self._computing.stop()
        self._sampler.stop()

    def close(self) -> None:
        """Give the slot's memory back, after `stop`."""
        if self._at_exit is not None:
            self._at_exit.cancel()
        self._slot.close()

    def _stage(self) -> str | None:
        recorder = self._recorder
        if not recorder.open:
            return recorder.after
        if recorder.unprobed:
            return None
        mark = recorder.current
        return GETITEM if mark is NOWHERE else mark.name

    def _send(self, tree: CallTree) -> None:
        if self._slot.unread or self._has_sent_last:
            self.stop()
            return
        asked = self._slot.last_asked
        for each in (tree, self._computing.tree):
            nodes, samples = each.take()
            self._unsent.extend(nodes)
            self._unsent_samples.extend(samples)
        self._send_nodes()
        self._send_samples()
        own_ns = self._sampler.own_cpu_ns + self._computing.own_cpu_ns
        tally.add(counters.OWN_LINES_CPU_NS, own_ns - self._own_cpu_ns)
        self._own_cpu_ns = own_ns
        send_counts(self._slot, self._recorder)
        if asked and not (self._unsent or self._unsent_samples):
            self._has_sent_last = True
            self._slot.sent_last()

    def _send_nodes(self) -> None:
        while self._unsent:
            node = self._unsent[0]
            text = node.frame.text.encode(errors="replace")
            for piece, start in enumerate(range(0, len(text), NODE_TEXT_BYTES)):
                part = text[start : start + NODE_TEXT_BYTES]
                if not self._slot.put_node(0, node.number, piece, parent=node.parent, text=part):
                    return  # the ring is full: the whole node is sent again later
            self._unsent.popleft()

    def _send_samples(self) -> None:
        """Send the samples, once the call paths that they name have all been sent."""
        slot = self._slot
        while self._unsent_samples and not self._unsent:
            sampled = self._unsent_samples[0]
            if not slot.put_samples(
                slot.name_id(sampled.stage), sampled.node, 0,
                samples=sampled.samples, wall_ns=sampled.wall_ns, cpu_ns=sampled.cpu_ns,
            ):  # fmt: skip
                return
            self._unsent_samples.popleft()


def is_edge(code: CodeType) -> bool:
    """Tell the frames around the user's code in a worker: our proxies, and torch's loop around those."""
    return code.co_filename.endswith(_EDGES)


_EDGES: Final = ("probe/proxies.py", "_utils/fetch.py", "_utils/worker.py")
