"""Makes the main thread of a running Python run some code, safely at every moment.

A few instructions behind the code of a mapped library keep all registers, those for vectors too, call
`Py_AddPendingCall(PyRun_SimpleString, text)`, which takes no memory, and go back to where the thread was. The
interpreter runs the text at its next bytecode, as it runs handlers of signals. The thread is sent there by
one write of its registers, and returns by itself: the death of this process at any moment leaves it intact. A
debugger's way of calling functions has neither property.

A thread that hangs in a system call comes to no bytecode. It can be made to run the text there: at a system
call it holds no lock of the C library's allocator.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Final

from pipeprof.errors import MeasureError
from pipeprof.measure.host.elf import ElfFile, Mapping, read_mappings

_SEIZE, _INTERRUPT, _SYSCALL, _DETACH, _GETREGS, _SETREGS = 0x4206, 0x4207, 24, 17, 12, 13
_TRACE_SYSTEM_CALLS: Final = 1
"""PTRACE_O_TRACESYSGOOD: distinguishes a stop at a system call from a signal."""
_ALL_THREADS: Final = 0x40000000
"""__WALL, for waitpid."""
_SYSTEM_CALL_STOP: Final = signal.SIGTRAP | 0x80
_EVENT_STOP: Final = 128
_REGISTERS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_RESTART_BLOCK: Final = -516
_RESTARTED: Final = (-512, -513, -514)
"""Results of an interrupted system call that the kernel would begin again."""
_RESTART_SYSTEM_CALL: Final = 219
PATIENCE_S: Final = 5.0
"""Longest time that a thread is given to stop."""
ROOM_BYTES: Final = 768
_NEEDED: Final = {"Py_AddPendingCall", "PyRun_SimpleString", "PyGILState_Ensure", "PyGILState_Release"}
_SOON_S: Final = 0.3
"""Time in which a thread that computes is waited for at a system call; then it is stopped if it is."""


class NoRightError(Exception):
    """The kernel does not let this process trace the other."""


class StuckError(Exception):
    """The thread did not stop."""


def is_supported() -> bool:
    """Return whether this way exists here: Linux on x86-64."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def run_in_main_thread(pid: int, text: str, at_once: bool = False) -> None:
    """Have the main thread of process `pid` run one line of Python, soon after this returns.

    The line must raise nothing. It is run at the next bytecode, or `at_once` in the system call in which the
    thread is. Raises `NoRightError`, `StuckError`, `ProcessLookupError`, and `MeasureError` if the process
    has no place for it.
    """
    place = _Place(pid)
    thread = _Thread(pid)
    try:
        thread.stop()
        if at_once and not thread.is_in_system_call():
            raise StuckError
        registers, back = thread.registers_after_call()
        place.write(_instructions(place, back, at_once), text)
        thread.send_to(place.address, registers)
    finally:
        thread.let_go()


class _Place:
    """Padding behind the code of a mapped library, and the addresses of Python's functions."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        by_path: dict[str, list[Mapping]] = {}
        for mapping in read_mappings(pid):
            by_path.setdefault(mapping.path, []).append(mapping)
        self.functions: dict[str, int] = {}
        self.address = room = 0
        for path, mappings in by_path.items():
            if not any("x" in mapping.mode for mapping in mappings):
                continue
            file = _opened(pid, path, mappings)
            if file is None:
                continue
            if _may_be_python(path):
                self.functions |= file.addresses(_NEEDED)
            at, size = file.room()
            if room < ROOM_BYTES <= size:
                self.address, room = at, size
            if room and len(self.functions) == len(_NEEDED):
                return
        raise MeasureError(
            f"process {pid} is not a Python that can be entered: it does not export Py_AddPendingCall",
            "start the job under `pipeprof trace` instead",
        )

    def write(self, instructions: bytes, text: str) -> None:
        data = instructions.ljust(_TEXT_AT, b"\0") + text.encode() + b"\0"
        if len(data) > ROOM_BYTES:
            raise MeasureError("the temporary directory has too long a name", "set TMPDIR to a shorter one")
        memory = os.open(f"/proc/{self.pid}/mem", os.O_WRONLY)
        try:
            os.pwrite(memory, data, self.address)
        finally:
            os.close(memory)


_TEXT_AT: Final = 256
"""Offset of the text behind the instructions."""


def _opened(pid: int, path: str, mappings: list[Mapping]) -> ElfFile | None:
    try:
        with Path(f"/proc/{pid}/root{path}").open("rb") as file:
            return ElfFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), mappings)
    except (OSError, ValueError, struct.error, IndexError):
        return None


def _may_be_python(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(("python", "libpython"))


def _instructions(place: _Place, back: int, at_once: bool) -> bytes:
    """Return the machine code that runs the text, at once or later, and jumps to `back`."""
    functions = place.functions
    text = place.address + _TEXT_AT
    if at_once:
        work = (
            _call(functions["PyGILState_Ensure"])
            + _hex("4189c4")  # mov r12d, eax
            + _argument("bf", text)
            + _call(functions["PyRun_SimpleString"])
            + _hex("4489e7")  # mov edi, r12d
            + _call(functions["PyGILState_Release"])
        )
    else:
        work = (
            _argument("bf", functions["PyRun_SimpleString"])
            + _argument("be", text)
            + _call(functions["Py_AddPendingCall"])
        )
    return b"".join(
        (
            _hex("488d6424 80"),  # lea rsp, [rsp-128]: past the red zone
            _hex("9c 50 51 52 56 57 4150 4151 4152 4153 4154 53 fc"),  # push what calls change; cld
            _hex("4889e3"),  # mov rbx, rsp
            _hex("4881ec 00400000 4883e4c0"),  # sub rsp, 16384; and rsp, -64
            _hex("31c0 b908000000 488dbc24 00020000 f348ab"),  # clear the head of what xsave writes
            _hex("b8ffffffff baffffffff 480fae2424"),  # xsave64 [rsp]
            work,
            _hex("b8ffffffff baffffffff 480fae2c24"),  # xrstor64 [rsp]
            _hex("4889dc 5b 415c 415b 415a 4159 4158 5f 5e 5a 59 58 9d"),  # mov rsp, rbx; pop all
            _hex("488da424 80000000"),  # lea rsp, [rsp+128]
            _hex("ff25 00000000") + struct.pack("<Q", back),  # jmp [rip]
        )
    )


def _hex(code: str) -> bytes:
    return bytes.fromhex(code.replace(" ", ""))


def _argument(register: str, value: int) -> bytes:
    """Return `mov` of a value: to rdi for "bf", rsi for "be", rax for "b8"."""
    return _hex(f"48{register}") + struct.pack("<Q", value)


def _call(address: int) -> bytes:
    return _argument("b8", address) + _hex("ffd0")


class _Thread:
    """The main thread of another process, traced until `let_go`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._at_entry = False
        try:
            self._ptrace(_SEIZE, _TRACE_SYSTEM_CALLS)
        except PermissionError as error:
            raise NoRightError from error

    def _ptrace(self, request: int, data: int = 0) -> None:
        if self._libc.ptrace(request, self.pid, None, data) == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def stop(self) -> None:
        """Stop the thread: in a system call, at the start of its next one, or anywhere if none comes soon."""
        anywhere = False
        deadline = time.monotonic() + _SOON_S
        self._ptrace(_INTERRUPT)
        while True:
            try:
                status = self._wait(deadline)
            except StuckError:
                if anywhere:
                    raise
                anywhere, deadline = True, time.monotonic() + PATIENCE_S
                self._ptrace(_INTERRUPT)
                continue
            signal_number = os.WSTOPSIG(status)
            if signal_number == _SYSTEM_CALL_STOP:
                self._at_entry = True
                return
            is_event = status >> 16 == _EVENT_STOP
            if is_event and (anywhere or self.is_in_system_call()):
                return
            self._ptrace(_SYSCALL, 0 if is_event else signal_number)

    def is_in_system_call(self) -> bool:
        """Return whether the thread, which is stopped, is in a system call."""
        return self._at_entry or self._signed(self._registers()["orig_rax"]) >= 0

    def _wait(self, deadline: float) -> int:
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG | _ALL_THREADS)
            if pid and not os.WIFSTOPPED(status):
                raise ProcessLookupError(f"process {self.pid} has ended")
            if pid:
                return status
            time.sleep(0.0005)
        raise StuckError

    def _registers(self) -> dict[str, int]:
        values = (ctypes.c_ulonglong * len(_REGISTERS))()
        self._ptrace(_GETREGS, ctypes.addressof(values))
        return dict(zip(_REGISTERS, values, strict=True))

    def registers_after_call(self) -> tuple[dict[str, int], int]:
        """Return the registers with which the thread is to go on, and where: its system call begins again."""
        registers = self._registers()
        result, back = self._signed(registers["rax"]), registers["rip"]
        if not self.is_in_system_call():
            return registers, back
        if self._at_entry or result in _RESTARTED:
            registers["rax"], back = registers["orig_rax"], back - 2
        elif result == _RESTART_BLOCK:
            registers["rax"], back = _RESTART_SYSTEM_CALL, back - 2
        registers["orig_rax"] = (1 << 64) - 1  # the kernel begins nothing again
        return registers, back

    @staticmethod
    def _signed(value: int) -> int:
        return value - (1 << 64) if value >> 63 else value

    def send_to(self, address: int, registers: dict[str, int]) -> None:
        """Have the thread go on at `address`."""
        values = (ctypes.c_ulonglong * len(_REGISTERS))(
            *(address if name == "rip" else registers[name] for name in _REGISTERS)
        )
        self._ptrace(_SETREGS, ctypes.addressof(values))

    def let_go(self) -> None:
        """Stop tracing the thread; it goes on."""
        try:
            self._ptrace(_DETACH)
        except OSError:  # it runs, and must be stopped to be let go; or it is gone
            try:
                self._ptrace(_INTERRUPT)
                self._wait(time.monotonic() + PATIENCE_S)
                self._ptrace(_DETACH)
            except (OSError, StuckError):
                return
