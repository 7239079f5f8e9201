"""The samples of one batch of a map-style data set: fetched as torch does, counted, the slowest noted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.batch_recorder import BatchRecorder
from pipeprof.measure.counters import UNSEEN
from pipeprof.measure.recorder import GETITEM, span

Fetch = Callable[[Any, BatchRecorder, Any], Any]
"""Asks a data set for what a sampler gave."""

_WORD_BITS: Final = 63
"""Of a number in a record, beside its sign."""


def one_sample(real: Any, recorder: BatchRecorder, index: Any) -> Any:
    """What torch asks for without batching: one sample, or whatever the set makes of the index."""
    return real[index]


def many_samples(real: Any, recorder: BatchRecorder, indices: Any) -> Any:
    """The samples of a batch."""
    many = getattr(real, "__getitems__", None)
    if many:
        return many(indices)
    if recorder.keeping:
        return [_kept(real, recorder, index) for index in indices]
    if recorder.tiny_samples:
        return [real[index] for index in indices]
    samples = []
    slowest = slowest_index = UNSEEN
    before = monotonic_ns()
    for index in indices:
        samples.append(real[index])
        now = monotonic_ns()
        if now - before > slowest:
            slowest, slowest_index = now - before, index
        before = now
    recorder.slowest_ns, recorder.slowest_index = slowest, _number(slowest_index)
    return samples


def _kept(real: Any, recorder: BatchRecorder, index: Any) -> Any:
    recorder.sample = _number(index)
    before = monotonic_ns()
    with span(GETITEM):
        sample = real[index]
    took = monotonic_ns() - before
    if took > recorder.slowest_ns:
        recorder.slowest_ns, recorder.slowest_index = took, recorder.sample
    recorder.sample = UNSEEN
    return sample


def _number(index: Any) -> int:
    """An index as a record holds it, numpy's and torch's too; `UNSEEN` for a key that is no number, and for a
    number that is too large, as a hash is."""
    try:
        number = operator.index(index)
    except Exception:  # a foreign index may refuse in any way
        return UNSEEN
    return number if number.bit_length() <= _WORD_BITS else UNSEEN


def count(asked: Any, samples: Any, fetch: Fetch) -> int:
    """How many samples were fetched for `asked`, where that is no list: an array or a range of indices, one
    index, one key."""
    if isinstance(asked, (str, bytes, Mapping)):
        return 1
    try:
        return len(asked)
    except Exception:  # a number; a tensor of no dimension; indices that come one by one
        return len(samples) if fetch is many_samples and isinstance(samples, list) else 1
