"""Reads ELF files that a process has mapped: addresses of functions, room behind the code."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE_BYTES: Final = 4096
_MAGIC: Final = b"\x7fELF\x02\x01"
"""An ELF file of 64 bits, the least significant byte first."""
_LOAD, _DYNAMIC_SYMBOLS, _EXECUTABLE, _RELOCATED = 1, 11, 1, 3


class Mapping(NamedTuple):
    """Line of `/proc/PID/maps` that maps a file."""

    start: int
    end: int
    mode: str
    offset: int
    path: str


class _Segment(NamedTuple):
    """Loaded part of an ELF file."""

    flags: int
    offset: int
    address: int
    size_bytes: int


def read_mappings(pid: int) -> list[Mapping]:
    """Return what a process has mapped of files, in order of addresses. Raises `OSError`."""
    lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    return list(_mapped_files(lines))


def _mapped_files(lines: list[str]) -> Iterator[Mapping]:
    for line in lines:
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5].startswith("/"):
            start, end = (int(address, 16) for address in parts[0].split("-"))
            yield Mapping(start, end, parts[1], int(parts[2], 16), parts[5])


class ElfFile:
    """An ELF file as a process has mapped it. Raises `ValueError` unless it is a 64-bit ELF file."""

    def __init__(self, data: mmap.mmap, mappings: list[Mapping]) -> None:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("no ELF file of 64 bits")
        self._data, self._mappings = data, mappings
        (kind,) = struct.unpack_from("<H", data, 16)
        self._segments = list(self._loaded())
        first = self._segments[0]
        start = min(mapping.start for mapping in mappings)
        self._base = start - first.address // PAGE_BYTES * PAGE_BYTES if kind == _RELOCATED else 0

    def _loaded(self) -> Iterator[_Segment]:
        (table,) = struct.unpack_from("<Q", self._data, 32)
        size, count = struct.unpack_from("<HH", self._data, 54)
        for at in range(table, table + size * count, size):
            kind, flags, offset, address, _, size_bytes = struct.unpack_from("<IIQQQQ", self._data, at)
            if kind == _LOAD:
                yield _Segment(flags, offset, address, size_bytes)

    def addresses(self, names: set[str]) -> dict[str, int]:
        """Return where the process has the functions `names`; without those it lacks."""
        addresses: dict[str, int] = {}
        for symbols, strings in self._symbol_tables():
            for at in range(symbols[0], symbols[0] + symbols[1], 24):
                name_at, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self._data, at)
                if section == 0:
                    continue
                start = strings[0] + name_at
                name = self._data[start : self._data.find(b"\0", start)].decode(errors="replace")
                if name in names:
                    addresses[name] = self._base + value
        return addresses

    def _symbol_tables(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Give offset and size of each table of dynamic symbols, and of its strings."""
        (table,) = struct.unpack_from("<Q", self._data, 40)
        size, count = struct.unpack_from("<HH", self._data, 58)
        sections = [
            struct.unpack_from("<IIQQQQII", self._data, table + number * size) for number in range(count)
        ]
        for _, kind, _, _, offset, length, link, _ in sections:
            if kind == _DYNAMIC_SYMBOLS:
                strings = sections[link]
                yield (offset, length), (strings[4], strings[5])

    def room(self) -> tuple[int, int]:
        """Return address and bytes of the largest padding behind code; 0 bytes if none."""
        rooms = [(0, 0)]
        for segment in self._segments:
            if segment.flags & _EXECUTABLE:
                end = self._base + segment.address + segment.size_bytes
                if any(each.start < end <= each.end and "x" in each.mode for each in self._mappings):
                    rooms.append((end, -end % PAGE_BYTES))
        return max(rooms, key=lambda room: room[1])
