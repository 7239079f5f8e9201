"""Counts and times the connections that a worker makes: to internet addresses, and TLS handshakes.

A connection costs more than its making: the server may greet, or prepare itself, before its first answer. So
the wait for the first bytes on a new connection is counted separately, as are the waits for later answers on
connections that were kept: their difference is what keeping a connection saves.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from time import monotonic_ns
from typing import Any, Final
from weakref import WeakKeyDictionary

from pipeprof.measure.probe.batch import active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.record.names import counters
from pipeprof.record.names.counters import CounterName

AnyCallable = Callable[..., Any]
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)


class _Turn(Enum):
    """The state of a connection: what is to come on it."""

    FIRST = "its first bytes"
    LATER = "a further answer"
    MORE = "the rest of an answer"


_turns: Final[WeakKeyDictionary[Any, _Turn]] = WeakKeyDictionary()
"""By connection that was made while a batch was made, in this process."""


def _connecting(
    count: CounterName, duration: CounterName
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: Any, *arguments: Any, **options: Any) -> Any:
            if active_batch() is None or not _is_internet(self):
                return original(self, *arguments, **options)
            began_ns = monotonic_ns()
            try:
                return original(self, *arguments, **options)
            finally:
                tally.add(duration, monotonic_ns() - began_ns)
                tally.add(count)
                _turns[self] = _Turn.FIRST

        return connect

    return wrap


def _receiving(original: Callable[..., Any]) -> Callable[..., Any]:
    def receive(self: Any, *arguments: Any, **options: Any) -> Any:
        if active_batch() is None or not _is_internet(self):
            return original(self, *arguments, **options)
        began_ns = monotonic_ns()
        try:
            return original(self, *arguments, **options)
        finally:
            _note_wait(self, monotonic_ns() - began_ns)

    return receive


def _note_wait(connection: Any, waited_ns: int) -> None:
    tally.add(counters.SOCKET_WAIT_NS, waited_ns)
    turn = _turns.get(connection, _Turn.MORE)
    if turn is _Turn.MORE:
        return
    _turns[connection] = _Turn.MORE
    count, duration = (
        (counters.FIRST_ANSWERS, counters.FIRST_ANSWER_NS)
        if turn is _Turn.FIRST
        else (counters.LATER_ANSWERS, counters.LATER_ANSWER_NS)
    )
    tally.add(count)
    tally.add(duration, waited_ns)


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    """Note that something was asked for on a connection that has answered before."""

    def send(self: Any, *arguments: Any, **options: Any) -> Any:
        if active_batch() is not None and _turns.get(self) is _Turn.MORE:
            _turns[self] = _Turn.LATER
        return original(self, *arguments, **options)

    return send


def _is_internet(connection: Any) -> bool:
    try:
        return connection.family in _INTERNET
    except Exception:  # of a class that derives from socket's: not known
        return False


SEAMS: Final = (
    ("socket:socket", "connect", _connecting(counters.CONNECTIONS, counters.CONNECT_NS)),
    ("ssl:SSLSocket", "do_handshake", _connecting(counters.HANDSHAKES, counters.HANDSHAKE_NS)),
    ("socket:socket", "recv_into", _receiving),  # http.client and requests
    ("socket:socket", "recv", _receiving),
    ("ssl:SSLSocket", "recv_into", _receiving),
    ("ssl:SSLSocket", "recv", _receiving),
    ("socket:socket", "sendall", _sending),
    ("socket:socket", "send", _sending),
    ("ssl:SSLSocket", "sendall", _sending),
    ("ssl:SSLSocket", "send", _sending),
)
"""Module and class, name, and what replaces it, as in `auto_stages`."""
