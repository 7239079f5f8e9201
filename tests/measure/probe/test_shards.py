"""Which shard each batch was read from: the records, the rows, and real loaders of iterable data sets."""

from __future__ import annotations

import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import pipeprof
from pipeprof.analyse.job.merge import merge
from pipeprof.measure.bench.run import run
from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.layout import SHARD_BYTES, Kind, pack_shard, shard_name, unpack_shard
from pipeprof.measure.probe.remote_requests import timed_sync
from pipeprof.measure.probe.ring import MOST_NAMES, Ring, Slot
from pipeprof.measure.probe.spans import Sink, activate, opened, reading, span
from pipeprof.measure.session.drain import Drained
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.writer import TraceWriter
from pipeprof.scenario import Scenario
from tests.forked import Program
from tests.measure.bench.test_ranks_together import as_rank, free_port


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/data/train/00001.tar", "train/00001.tar"),
        (b"00001.tar", "00001.tar"),
        ("s3://bucket/train/00001.tar", "train/00001.tar"),
        ("https://me:secret@host/a.tar?signature=secret", "a.tar"),
    ],
)
def test_a_shard_is_called_by_the_end_of_its_path(file: str | bytes, name: str) -> None:
    assert shard_name(file) == name


def test_of_a_long_name_the_end_is_kept() -> None:
    kept = unpack_shard(pack_shard("é" * 60 + "-00001.tar"))
    assert kept.endswith("éé-00001.tar")
    assert len(pack_shard("é" * 60)) == SHARD_BYTES
    assert unpack_shard(pack_shard("damaged-\udcff.tar")) == "damaged-?.tar"


class Recorded:
    """One worker's batches of two samples, and what the main process reads of them."""

    def __init__(self, records: int = 1024, in_shards: bool = True) -> None:
        self.ring = Ring(1, records)
        self.batch = BatchRecorder(Slot(self.ring.block, 0, records, 0), in_shards=in_shards)
        self.watch: Any = SimpleNamespace(ring=self.ring, workers=1, loader_number=0, finished={})
        self.seq = 0

    def make(self, *files: str | bytes) -> None:
        """A batch that opens these files and reads from them; without any it reads on in the last."""
        self.batch.begin(0, self.seq, 0)
        for file in files:
            opened()
            reading(file)
        self.batch.samples = 2
        self.batch.finish(0)
        self.seq += 1

    def close(self) -> None:
        self.ring.close()
        vars(self).clear()  # the slot that writes holds the memory too

    def shards(self) -> list[str | None]:
        drained = Drained()
        drained.add(self.watch)
        column = drained.tables()["batches"].get("shard")
        return [None] * self.seq if column is None else column.to_pylist()


@pytest.fixture
def worker() -> Iterator[Recorded]:
    made = Recorded()
    yield made
    made.close()


def test_a_batch_has_the_shard_that_was_read_last(worker: Recorded) -> None:
    for files in (["a.tar"], [], ["b.tar"], [], []):
        worker.make(*files)
    assert worker.shards() == ["a.tar", "a.tar", "b.tar", "b.tar", "b.tar"]
    worker.make()
    worker.make(b"c.tar")
    assert worker.shards() == ["b.tar", "c.tar"], "told of in an earlier drain"


def test_a_file_for_each_sample_is_no_shard(worker: Recorded) -> None:
    for number in range(20):
        worker.make(f"{number}.jpg", f"{number}.txt")
    records = worker.ring.drain(0)
    assert not (records["kind"] == Kind.SHARD).any()
    assert (records["name"][records["kind"] == Kind.BATCH] == 0).all()


def test_unprobed_batches_make_no_shard_of_a_file_for_each_sample(worker: Recorded) -> None:
    """Nothing that they open is counted, and so their samples are not."""
    for number in range(20):
        worker.batch.unprobed_next = number % 8 != 0
        if worker.batch.unprobed_next:
            worker.batch.begin(0, worker.seq, 0)
            worker.batch.finish_unprobed(2, worker.batch.start_ns + 1)
            worker.seq += 1
        else:
            worker.make(f"{number}.jpg", f"{number}.txt")
    records = worker.ring.drain(0)
    assert not (records["kind"] == Kind.SHARD).any()


def test_a_map_style_set_names_none() -> None:
    made = Recorded(in_shards=False)
    made.make("a.h5")
    made.make()
    assert made.shards() == [None, None]
    made.close()


def test_there_may_be_more_shards_than_names_of_stages(worker: Recorded) -> None:
    names = [f"{number:05}.tar" for number in range(2 * MOST_NAMES)]
    for name in names:
        worker.make(name)
    worker.batch.begin(0, worker.seq, 0)
    with span("a stage that comes late"):
        pass
    worker.batch.finish(0)
    assert worker.shards() == [*names, names[-1]]
    assert worker.ring.names(0) == ["a stage that comes late"]


def test_a_shard_that_found_the_ring_full_is_told_of_again() -> None:
    made = Recorded(records=2)
    made.make("a.tar")
    made.make()  # no room
    assert made.shards() == ["a.tar"]
    made.make()
    assert made.shards() == ["a.tar"]
    made.make()
    made.make()
    made.make("b.tar")  # no room, for the name of it neither
    assert made.shards() == ["a.tar", "a.tar"]
    made.make()
    assert made.shards() == ["b.tar"]
    made.close()


def test_rows_of_several_flushes_read_back(worker: Recorded, tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run", RunMeta())
    for files in ([], ["a.tar"], ["b.tar"], []):
        worker.make(*files)
        drained = Drained()
        drained.add(worker.watch)
        writer.append("batches", drained.tables()["batches"])
    writer.flush()
    assert load(tmp_path / "run").table("batches")["shard"].to_pylist() == [None, "a.tar", "b.tar", "b.tar"]
    writer.close("complete")
    run = load(tmp_path / "run")
    assert run.table("batches")["shard"].to_pylist() == [None, "a.tar", "b.tar", "b.tar"]
    (piece,) = load(tmp_path / "run").pieces("batches", ["seq", "shard"])
    assert piece["shard"].to_pylist() == [None, "a.tar", "b.tar", "b.tar"]


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("bucket/a.tar", 0, 10), "bucket/a.tar"),
        ((SimpleNamespace(path="https://host/b.tar"), 0, 10), "https://host/b.tar"),
        ((object(), "bucket", "c.tar", None, 0, 10), "bucket/c.tar"),  # s3fs
        ((object(), 0, 10), None),
    ],
)
def test_bytes_that_fsspec_fetched_came_from_a_file(arguments: tuple[Any, ...], file: str | None) -> None:
    made = Recorded()
    made.batch.begin(0, 0, 0)
    for _ in range(2):
        timed_sync(lambda loop, function, *rest: function(*rest))(None, lambda *_: b"bytes", *arguments)
    assert (made.batch.file, made.batch.files) == (file, int(file is not None))
    made.batch.finish(0)
    made.close()


def test_nothing_is_remembered_where_nobody_listens() -> None:
    sink = Sink()
    before = activate(None)
    opened()
    reading("a.tar")
    activate(before)
    assert (sink.file, sink.files) == (None, 0)


# -- real loaders ----------------------------------------------------------------------------------------


class Lines(IterableDataset[torch.Tensor]):
    """A user's own set: files of many samples of 8 KiB, read from front to back with plain `open`."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        for path in self.files[info.id :: info.num_workers] if info else self.files:
            with open(path, "rb") as file:  # noqa: PTH123 - as many write it
                assert file.name == str(path)
                while data := file.read(8192):
                    yield torch.tensor([len(data)])


class Members(Lines):
    """Archives, one sample a member."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        for path in self.files:
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield torch.tensor([len(file.read())])


def shards_of(loader: DataLoader[Any], out: Path) -> list[tuple[int, str | None]]:
    """Worker and shard of each batch, in the order of the batches."""
    with pipeprof.profile(loader, out=out) as profiled:
        for _ in profiled:
            pass
    rows = load(out).table("batches").select(["seq", "worker", "shard"]).to_pylist()
    return [(row["worker"], row["shard"]) for row in sorted(rows, key=lambda row: row["seq"])]


def make_files(directory: Path, count: int, samples: int) -> list[Path]:
    directory.mkdir()
    files = [directory / f"{number}.bin" for number in range(count)]
    for path in files:
        path.write_bytes(bytes(8192 * samples))
    return files


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_own_files_are_named(workers: int, tmp_path: Path) -> None:
    files = make_files(tmp_path / "train", 3, 16)
    found = shards_of(DataLoader(Lines(files), batch_size=4, num_workers=workers), tmp_path / "run")
    assert [shard for _, shard in found if shard] == [f"train/{n}.bin" for n in range(3) for _ in range(4)]


def test_what_tarfile_opens_is_named_and_its_bytes_are_read(tmp_path: Path) -> None:
    (sample,) = make_files(tmp_path / "train", 1, 1)
    archives = [tmp_path / "train" / f"{number}.tar" for number in range(2)]
    for path in archives:
        with tarfile.open(path, "w") as archive:
            for number in range(8):
                archive.add(sample, f"{number}.bin")
    found = shards_of(DataLoader(Members(archives), batch_size=4), tmp_path / "run")
    assert [shard for _, shard in found if shard] == [f"train/{n}.tar" for n in range(2) for _ in range(2)]
    reads = [row for row in load(tmp_path / "run").table("stages").to_pylist() if row["stage"] == "read"]
    assert sum(row["bytes"] for row in reads) >= 16 * 8192


def test_a_users_files_of_one_sample_are_not(tmp_path: Path) -> None:
    files = make_files(tmp_path / "train", 12, 1)
    found = shards_of(DataLoader(Lines(files), batch_size=4, num_workers=0), tmp_path / "run")
    assert {shard for _, shard in found} == {None}


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_shards_of_a_scenario_are_named(
    real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "cache"))
    place = {"path": str(tmp_path), "cache": "warm"} if real else {}
    scenario = Scenario.model_validate(
        {
            "name": "shards",
            "data": {"format": "tar_shards", "samples": 128, "sample_bytes": 2000, "crop": 32},
            "storage": {"tier": "nvme", **place},
            "loader": {"batch_size": 4, "workers": 2},
            "accelerator": {"kind": "emulated", "step_ms": 1.0},
            "run": {"steps": 32, "warmup_steps": 2},
        }
    )
    rows = load(run(scenario, tmp_path / "run")).table("batches").to_pylist()
    found = Counter(row["shard"] for row in rows if row["epoch"] == 0)
    assert len(found) == 16
    assert set(found.values()) == {2}
    assert all(name.endswith(".tar") for name in found)


def train(directory: Path) -> None:
    """One rank of two, each with files of its own. One of rank 1's is slow to read."""
    dist.init_process_group("gloo")
    files = sorted((directory / f"of-{dist.get_rank()}").glob("*.bin"))
    loader = DataLoader(OneSlow(files), batch_size=4, num_workers=1)
    with pipeprof.profile(loader, out="job") as profiled:
        for batch in profiled:
            time.sleep(0.005)
            dist.all_reduce(batch)
    dist.destroy_process_group()


class OneSlow(Lines):
    def __iter__(self) -> Iterator[torch.Tensor]:
        for path in self.files:
            for sample in Lines([path]):
                time.sleep(0.02 if path.match("of-1/2.bin") else 0.0)
                yield sample


@pytest.mark.slow
def test_the_slow_shard_of_a_real_job_is_named(tmp_path: Path) -> None:
    for rank in (0, 1):
        make_files(tmp_path / f"of-{rank}", 4, 40)
    port = free_port()
    job = [Program(as_rank(rank, 2, port, partial(train, tmp_path)), tmp_path) for rank in (0, 1)]
    done = [program.finished() for program in job]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    found = merge([tmp_path / "job"])
    assert (found.verdict.rank, found.verdict.shard) == (1, "of-1/2.bin")
    assert "read from of-1/2.bin, which made 25% of its steps" in found.verdict.sentence
    assert found.shards is not None
    assert {row.shard for row in found.shards} == {f"of-{rank}/{n}.bin" for rank in (0, 1) for n in range(4)}
