"""Making batches in 1, 2 and 4 processes: what is counted, of which loaders, and what the run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.datapipes.iter import IterableWrapper

from pipeprof.errors import MeasureError
from pipeprof.measure.session.processes.scaling import BatchMaker, Makings, probe_scaling
from pipeprof.measure.session.session import Session
from pipeprof.record.added.scaling_probe import read_scaling

BURN = 20_000


class Computing(Dataset[Any]):
    """Samples that take a fixed piece of work."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        assert 0 <= index < 64
        return torch.tensor(sum(range(BURN)) + index)


class Stream(IterableDataset[Any]):
    """An endless stream of the same."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.tensor(sum(range(BURN)))


class Broken(Computing):
    """A data set that is gone when the script has ended."""

    def __getitem__(self, index: int) -> Any:
        raise FileNotFoundError("the archive is closed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Computing(), batch_size=4, shuffle=True, drop_last=True),
        DataLoader(Computing(), batch_size=None),
        DataLoader(Stream(), batch_size=4),
        DataLoader(Stream(), batch_size=None),
    ],
    ids=["batches", "samples", "stream", "stream of samples"],
)
def test_the_cpu_time_of_a_sample_is_counted(loader: DataLoader[Any]) -> None:
    making = BatchMaker.of(loader)
    assert making is not None
    probe = probe_scaling(making, "train", point_s=0.05)
    assert [point.processes for point in probe.points] == [1, 2, 4]
    size = loader.batch_size or 1
    for point in probe.points:
        assert point.batches >= 2 * point.processes
        assert 50_000 < point.cpu_ns_per_sample < 50_000_000, "about 0.3 ms, whatever the batch's size"
        assert point.samples_per_s > size
    assert probe.growth[1] == 1.0


@pytest.mark.slow
def test_the_run_keeps_the_probe_of_its_main_loader(tmp_path: Path) -> None:
    makings = Makings()
    with Session(tmp_path / "run") as session:
        for number, (name, length) in enumerate((("val", 2), ("train", 8))):
            loader = session.loader(Computing(), name=name, batch_size=4)
            makings.keep(number, name, loader)
            for _ in zip(range(length), loader, strict=False):
                pass
    kept = makings.probe(tmp_path / "run")
    assert kept.loader == "train"
    assert read_scaling(tmp_path / "run") == kept


@pytest.mark.slow
def test_what_cannot_be_made_any_more_is_one_error() -> None:
    making = BatchMaker.of(DataLoader(Broken(), batch_size=4))
    assert making is not None
    with pytest.raises(MeasureError, match="made once more: FileNotFoundError: the archive is closed"):
        probe_scaling(making)


def test_a_run_without_batches_cannot_be_probed(tmp_path: Path) -> None:
    with Session(tmp_path / "run"):
        pass
    with pytest.raises(MeasureError, match="no batch was taken"):
        Makings().probe(tmp_path / "run")


def test_a_data_pipe_is_left_alone() -> None:
    assert BatchMaker.of(DataLoader(IterableWrapper(range(8)))) is None
