"""Counters of files, pictures, sockets, collections, streams and levels; what they leave as it was."""

from __future__ import annotations

import gc
import gzip
import importlib
import io
import os
import socket
import ssl
import sys
import tarfile
import threading
import time
import zipfile
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, PngImagePlugin  # noqa: F401 - its reader is watched once it is loaded
from torchvision import transforms

from pipeprof.measure.host.mounts import counts_device_reads, shared_memory_bytes
from pipeprof.measure.probe import auto_stages
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.counting import allocated, levels, opens, pixels, sending, stream, tally
from pipeprof.measure.probe.counting.affinity import AffinityWatch
from pipeprof.measure.probe.counting.gc_watch import WATCH
from pipeprof.measure.probe.counting.sending import EVERY_NS, CountSender, send_counts
from pipeprof.measure.probe.layout import COUNTER, Kind
from pipeprof.measure.probe.ring import Ring, Slot
from pipeprof.record.names import counters

IMPORTED_NS = time.monotonic_ns()


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring(1, 256)
    yield ring
    ring.close()


@pytest.fixture
def making(ring: Ring) -> Iterator[None]:
    """A batch is being made in this thread, with all libraries that are loaded being watched."""
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    auto_stages.install()
    opens.forget_files()
    tally.clear()
    recorder.begin(0, 0, 0)
    yield
    recorder.abandon()
    auto_stages.uninstall()
    tally.clear()


def counts(*names: str) -> tuple[int, ...]:
    taken = tally.take()
    return tuple(taken.get(name, 0) for name in names)


def test_the_first_file_of_a_process_asks_for_its_device_once(making: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    counts_device_reads.cache_clear()
    tally.clear()
    with open(tmp_path / "file", "rb") as opened:  # noqa: PTH123
        opened.read()
    assert counts("open.count") == (1,)
    assert counts_device_reads.cache_info().misses == 1


# -- the tally -------------------------------------------------------------------------------------------


def test_counts_are_taken_once() -> None:
    tally.clear()
    tally.add("open.count")
    tally.add("open.count", 2)
    tally.note("stream.item", 5)
    tally.note("stream.item", 5)
    assert tally.take() == {"open.count": 3}
    assert tally.take() == {}
    assert tally.take_notes() == [("stream.item", 5)] * 2
    assert tally.take_notes() == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_has_none_of_its_parents_counts() -> None:
    tally.clear()
    tally.add("open.count")
    child = os.fork()
    if child == 0:
        os._exit(len(tally.take()))
    assert os.waitpid(child, 0)[1] == 0
    assert tally.take() == {"open.count": 1}


def test_counts_go_through_a_workers_slot_once_a_second(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    slot = Slot(ring.block, 0, ring.records, 0)
    monkeypatch.setattr(sending, "Finalize", lambda *arguments, **options: None)
    sender = CountSender(recorder, slot)
    tally.clear()

    def sent() -> dict[str, int]:
        records = ring.drain(0)
        rows = records[records["kind"] == Kind.COUNTER].view(COUNTER.dtype)
        names = ring.names(0)
        return {names[row["name"]]: int(row["value"]) for row in rows}

    tally.add("open.count", 3)
    sender.batch_ended(10)
    first = sent()
    assert first["open.count"] == 3
    assert counters.THREADS in first
    tally.add("open.count", 4)
    sender.batch_ended(10 + EVERY_NS - 1)
    assert sent() == {}
    sender.batch_ended(10 + EVERY_NS)
    assert sent()["open.count"] == 4
    tally.add("open.count", 5)
    ring.ask_last()
    sender.batch_ended(11 + EVERY_NS)
    assert sent()["open.count"] == 5, "who reads leaves, and takes nothing later"
    assert ring.awaited() == []


def test_allocations_are_looked_at_between_batches(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the first batch is the first look, however soon its worker ends."""
    kept: dict[str, int | None] = {"bytes": 50}
    monkeypatch.setattr(allocated, "allocated_bytes", lambda: kept["bytes"])
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    slot = Slot(ring.block, 0, ring.records, 0)

    def sent() -> list[int]:
        send_counts(slot, recorder)
        records = ring.drain(0)
        rows = records[records["kind"] == Kind.COUNTER].view(COUNTER.dtype)
        return [int(row["value"]) for row in rows if ring.names(0)[row["name"]] == counters.ALLOCATED_BYTES]

    assert sent() == [], "it has no batch yet"
    looks: tuple[tuple[int, int | None], ...] = ((0, 100), (99, 120), (101, 150), (202, 180), (303, None))
    for end_ms, kept["bytes"] in looks:
        recorder.begin(0, 0, 0)
        recorder.finish(0, 10**9 + end_ms * 1_000_000)
    assert sent() == [100, 180]
    assert sent() == []


def test_what_is_kept_is_told_from_what_was_freed() -> None:
    before = allocated.allocated_bytes()
    if before is None:
        pytest.skip("the C library does not tell")
    kept = [bytes(100_000) for _ in range(100)]
    now = allocated.allocated_bytes()
    assert now is not None and 9_000_000 <= now - before < 11_000_000
    kept.clear()
    after = allocated.allocated_bytes()
    assert after is not None and after - before < 1_000_000


# -- files -----------------------------------------------------------------------------------------------


def test_files_that_are_opened_again(making: None, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for file in (one, other):
        file.write_bytes(b"x")
    tally.clear()
    opens.forget_files()
    for file in (one, other, one, one):
        with open(file, "rb") as opened:  # noqa: PTH123
            opened.read()
    opened_files, again, again_ns = counts("open.count", "open.repeated", "open.repeated_parse_ns")
    assert (opened_files, again) == (4, 2)
    assert again_ns > 0
    for file in (one, other):
        file.rename(file.with_suffix(".new"))
        file.with_suffix(".new").open("rb").close()
    assert counts("open.count", "open.repeated_parse_ns") == (2, 0), "the first opening cannot be avoided"


def test_arrays_that_are_unpacked_whole(making: None, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(1000), y=np.arange(10))
    tally.clear()
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["x"][500] == 500
    unpacked, took_ns = counts("decode.member_bytes", "decode.members_ns")
    assert unpacked == 8000 and took_ns > 0


def test_archives_by_position_and_by_keyword(making: None, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("member", b"x")
    with tarfile.TarFile(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("member"), io.BytesIO())
    tally.clear()
    opens.forget_files()
    zipfile.ZipFile(tmp_path / "a.zip").close()
    zipfile.ZipFile(file=tmp_path / "a.zip").close()
    tarfile.TarFile(name=tmp_path / "a.tar").close()
    tarfile.TarFile(fileobj=io.BytesIO((tmp_path / "a.tar").read_bytes())).close()
    taken = tally.take()
    assert taken["open.parse_ns"] > taken["open.repeated_parse_ns"] > 0


def test_outside_of_a_batch_nothing_is_counted(tmp_path: Path) -> None:
    auto_stages.install()
    tally.clear()
    try:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("member", b"x")
        assert counts("open.count", "open.parse_ns") == (0, 0)
    finally:
        auto_stages.uninstall()


class Refuses:
    """A path that does not want to be asked."""

    def __fspath__(self) -> str:
        raise RuntimeError("not now")


def test_what_cannot_be_asked_is_no_file(making: None) -> None:
    assert opens.note_opened(Refuses()) is False
    assert opens.note_opened(io.BytesIO()) is False
    assert opens.note_opened(3) is False
    assert counts("open.count") == (0,)


def test_rows_of_a_parquet_file(tmp_path: Path, making: None) -> None:
    pq.write_table(pa.table({"x": list(range(100))}), tmp_path / "a.parquet", row_group_size=40)
    tally.clear()
    opens.forget_files()
    with pq.ParquetFile(source=tmp_path / "a.parquet") as file:
        file.read_row_group(0)
        file.read_row_groups([1, 2])
    assert counts("decode.rows", "open.count") == (100, 1)


# -- pictures --------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (100, 80)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def decoded() -> tuple[int, ...]:
    return counts("decode.pictures", "decode.pixels", "shrink.pixels")


def test_the_last_of_several_crops_and_resizes_counts(making: None, picture: Path) -> None:
    Image.open(picture).crop((0, 0, 50, 40)).resize((10, 10))
    assert decoded() == (1, 8000, 100)


def test_pictures_that_are_decoded_first_and_shrunk_then(making: None, picture: Path) -> None:
    frames = [Image.open(picture) for _ in range(4)]
    for frame in frames:
        frame.load()
    for frame in frames:
        frame.crop((0, 0, 50, 40)).resize((10, 10))
    assert decoded() == (4, 32_000, 400)


def test_a_thumbnail_and_a_reduced_picture_count_once(making: None, picture: Path) -> None:
    image = Image.open(picture)
    image.thumbnail((10, 8))
    Image.open(picture).resize((10, 10), reducing_gap=1.0)
    assert decoded() == (2, 16_000, 80 + 100)


def test_pictures_that_were_not_decoded_here_do_not_count(making: None) -> None:
    pixels.note_decoded(10, 10)
    pixels.note_left(50, 100)
    Image.new("RGB", (100, 80)).resize((5, 5))
    assert decoded() == (1, 100, 50)


def test_a_pipeline_that_shows_no_shrinking_counts_what_it_gives(making: None, picture: Path) -> None:
    pipeline = transforms.Compose([transforms.ToTensor(), lambda tensor: tensor[:, :20, :10]])
    for _ in range(2):
        pipeline(Image.open(picture))
    assert decoded() == (2, 16_000, 400)
    transforms.Compose([transforms.Resize((8, 10)), transforms.ToTensor()])(Image.open(picture))
    assert decoded() == (1, 8000, 80)


class Shapeless:
    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("not now")


@pytest.mark.parametrize("output", [Shapeless(), 3, None, torch.zeros(3)])
def test_what_a_pipeline_gives_may_be_anything(output: object, making: None) -> None:
    pixels.note_decoded(10, 10)
    pixels.note_output(output, pixels.shrinks())
    assert decoded() == (1, 100, 0)


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """A picture of eight frames, of which only the first stands for itself."""
    path = tmp_path / "moving.webp"
    frames = [Image.new("RGB", (32, 24), (8 * k, 0, 0)) for k in range(8)]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], kmax=0)
    return path


def test_frames_on_the_way_to_the_one_that_is_asked_for_are_counted(making: None, moving: Path) -> None:
    auto_stages.install()  # the reader has been loaded since
    with Image.open(moving) as picture:
        picture.seek(5)
        picture.convert("RGB")
    assert counts("decode.frames", "decode.pictures") == (6, 1)


# -- bytes that are skipped ------------------------------------------------------------------------------


def test_what_a_seek_decompresses_is_counted(making: None, tmp_path: Path) -> None:
    path = tmp_path / "volume.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with gzip.open(path) as file:
        file.seek(60_000)
        assert len(file.read(10)) == 10
        skipped, took_ns = counts("skip.bytes", "skip.ns")
        assert skipped == 60_000 and took_ns > 0
        file.seek(20_000)  # back: from the start
        file.read(1)
        assert 20_000 <= counts("skip.bytes")[0] < 100_000
    with gzip.open(path) as file:
        file.read(50_000)
    assert counts("skip.bytes") == (0,)


# -- sockets ---------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


SEAMS = ((socket.socket, "connect"), (socket.socket, "recv"), (socket.socket, "recv_into"),
         (ssl.SSLSocket, "recv"), (ssl.SSLSocket, "recv_into"), (ssl.SSLSocket, "do_handshake"))  # fmt: skip


def test_connections_and_waits(server: socket.socket) -> None:
    before = [vars(owner).get(name) for owner, name in SEAMS]
    ring = Ring(1, 64)
    recorder = BatchRecorder(Slot(ring.block, 0, ring.records, 0))
    auto_stages.install()
    tally.clear()
    recorder.begin(0, 0, 0)
    with socket.create_connection(server.getsockname()) as connection:
        assert connection.recv(2) + connection.recv(3) == b"hello"
    recorder.abandon()
    counted = tally.take()
    with socket.create_connection(server.getsockname()) as connection:
        assert connection.recv(5) == b"hello"
    assert tally.take() == {}, "outside of a batch"
    auto_stages.uninstall()
    assert [vars(owner).get(name) for owner, name in SEAMS] == before, "everything is put back"
    assert counted["connect.count"] == 1
    assert counted["connect.ns"] > 0
    assert counted["socket.wait_ns"] > 0
    del recorder
    ring.close()


def test_the_first_answer_on_a_connection_is_counted_apart_from_later_ones(making: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220")
                while connection.recv(1):
                    connection.sendall(b"ok")

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(listening.getsockname()) as client:
            assert client.recv(2) + client.recv(1) == b"220"
            for _ in range(3):
                client.sendall(b"?")
                client.send(b"")  # the same question
                assert client.recv(1) + client.recv(1) == b"ok"
        thread.join()
    first, first_ns, later, later_ns = counts(
        "connect.first_answers",
        "connect.first_answer_ns",
        "socket.later_answers",
        "socket.later_answer_ns",
    )
    assert (first, later) == (1, 3)
    assert first_ns > 0 and later_ns > 0


def test_a_failed_connection_counts_and_fails_as_ever(making: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with pytest.raises(ConnectionRefusedError), socket.socket() as client:
        client.connect(address)
    assert counts("connect.count") == (1,)


def test_sockets_of_this_machine_are_no_connections(making: None) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"x")
        assert there.recv(1) == b"x"
    assert counts("socket.wait_ns", "connect.count") == (0, 0)


# -- the garbage collector -------------------------------------------------------------------------------


class NeverEqual:
    """A callback that refuses to be compared."""

    def __call__(self, phase: str, info: dict[str, Any]) -> None: ...

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not now")

    __hash__ = object.__hash__


def test_collections_are_timed_and_callbacks_put_back() -> None:
    theirs = NeverEqual()
    gc.callbacks.append(theirs)
    before = len(gc.callbacks)
    try:
        WATCH.start()
        WATCH.start()
        assert len(gc.callbacks) == before + 1
        tally.clear()
        spent = WATCH.total_ns
        gc.collect(0)
        taken = tally.take()
        assert taken["gc.count.0"] == 1
        assert taken["gc.ns.0"] == WATCH.total_ns - spent > 0
        WATCH.stop()
        gc.collect(0)
        assert tally.take() == {}
        assert len(gc.callbacks) == before
    finally:
        gc.callbacks[:] = [each for each in gc.callbacks if each is not theirs]


def test_a_collection_that_had_begun_before_is_not_timed() -> None:
    tally.clear()
    WATCH.stop()
    WATCH("stop", {"generation": 2})
    assert tally.take() == {}


# -- streams ---------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: torch.arange(n, n + 5),
        lambda n: np.arange(n, n + 5).reshape(1, 5),
        np.float32,
        lambda n: {"x": torch.tensor(n), "name": "a"},
        lambda n: OrderedDict(x=np.array([n])),
        lambda n: (f"text {n}", object()),
        lambda n: Pair(n, [n]),
        lambda n: b"%d" % n,
    ],
)
def test_equal_items_have_equal_digests(make: Any) -> None:
    assert stream.digest(make(1)) == stream.digest(make(1)) is not None
    assert stream.digest(make(1)) != stream.digest(make(2))


class Guarded:
    """Must not be asked for anything."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"was asked for {name}")


class GuardedList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("was iterated")


def test_no_code_of_an_items_class_is_called() -> None:
    assert stream.digest(Guarded()) is None
    assert stream.digest((1, Guarded())) is not None
    assert stream.digest(GuardedList([1])) == stream.digest([1])
    assert stream.digest(np.array([object()], dtype=object)) is None
    assert stream.digest(torch.zeros(2, device="meta")) is None


def test_a_large_strided_array_is_not_copied() -> None:
    wide = np.broadcast_to(np.zeros(1, np.int8), (1 << 20, 1 << 20))  # 1 TiB, of one byte
    assert stream.digest(wide) is not None


# -- levels ----------------------------------------------------------------------------------------------


def test_levels_are_those_of_this_process() -> None:
    found = levels.read_levels()
    assert found[counters.THREADS] >= 1
    assert found[counters.AFFINITY_CORES] == len(os.sched_getaffinity(0))
    assert found["level.pool.torch"] == torch.get_num_threads()
    assert found[counters.PRIVATE_BYTES] > 1 << 20
    assert all(name.startswith(tuple(counters.LEVELS)) for name in found)


def test_shared_memory_in_use_is_a_level_beside_its_size() -> None:
    room = shared_memory_bytes()
    found = levels.read_levels()
    if room is None:
        assert counters.SHARED_MEMORY_BYTES not in found
        return
    assert found[counters.SHARED_MEMORY_BYTES] == room[1]
    assert 0 <= found[counters.SHARED_MEMORY_USED_BYTES] <= room[1]


def test_the_age_of_a_process_is_that_since_its_own_start() -> None:
    since_import_ns = time.monotonic_ns() - IMPORTED_NS
    age_ns = levels.process_age_ns()
    uptime_ns = float(Path("/proc/uptime").read_text().split()[0]) * 1e9 if age_ns else float("inf")
    assert age_ns == 0 or since_import_ns <= age_ns <= uptime_ns


def test_pools_of_native_libraries_are_asked_of_a_loaded_threadpoolctl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is never imported for the user: what reading it gives depends on their program."""
    monkeypatch.setattr(levels, "_pools", levels._Seldom(levels._native_pools))
    monkeypatch.delitem(sys.modules, "threadpoolctl", raising=False)
    assert "level.pool.blas" not in levels.read_levels()
    assert "threadpoolctl" not in sys.modules
    pools = [("blas", 3), ("blas", 16), ("openmp", 5)]
    loaded = ModuleType("threadpoolctl")
    loaded.threadpool_info = lambda: [{"user_api": name, "num_threads": n} for name, n in pools]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "threadpoolctl", loaded)
    monkeypatch.setattr(levels, "_pools", levels._Seldom(levels._native_pools))
    found = levels.read_levels()
    assert (found["level.pool.blas"], found["level.pool.openmp"]) == (16, 5)
    assert "level.pool.blas" not in levels.read_levels(), "it is asked seldom: it walks over all libraries"


def test_a_name_of_a_counter_and_of_its_parts_are_told_apart_from_others() -> None:
    names = [*counters.COUNTERS, *counters.LEVELS]
    assert len(set(names)) == len(names) > 40
    assert all(name.startswith(counters.LEVEL) for name in counters.LEVELS)
    assert not any(name.startswith(counters.LEVEL) for name in counters.COUNTERS)
    assert counters.part_of(counters.GC_NS, 2) == "gc.ns.2"


# -- the mask of cores -----------------------------------------------------------------------------------


@pytest.fixture
def mask() -> Iterator[set[int]]:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores to be bound to one")
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


BINDS = """
import ctypes, os
libc = ctypes.CDLL(None)
mask = ctypes.c_ulong(1 << min(os.sched_getaffinity(0)))
libc.sched_setaffinity(0, ctypes.sizeof(mask), ctypes.byref(mask))
"""


def test_the_import_that_binds_the_process_is_named(
    mask: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer_library.py").write_text("import inner_library")
    (tmp_path / "inner_library.py").write_text(BINDS)
    (tmp_path / "other_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    watch = AffinityWatch()
    watch.start()
    importlib.import_module("outer_library")
    importlib.import_module("other_library")
    watch.stop()
    assert watch.since == "the import of outer_library"
    assert watch not in sys.meta_path


def test_the_line_that_binds_the_process_is_named(mask: set[int]) -> None:
    watch, plain = AffinityWatch(), os.sched_setaffinity
    watch.start()
    os.sched_setaffinity(0, {min(mask)})
    watch.stop()
    assert watch.since is not None and watch.since.startswith("test_counting.py:")
    assert os.sched_setaffinity is plain


def test_a_mask_that_stays_is_nobodys(mask: set[int]) -> None:
    watch = AffinityWatch()
    watch.start()
    os.sched_setaffinity(0, mask)
    watch.stop()
    assert watch.since is None
