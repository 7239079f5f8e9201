"""What a data set gives: the samples, the errors that name their file, the same draw for the same seed."""

from __future__ import annotations

import gc
import re
import shutil
import tarfile
import traceback
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder

from pipeprof.errors import DataError
from pipeprof.measure.bench.training import make_loader
from pipeprof.measure.data.open import dataset_files, describe_data, open_dataset
from pipeprof.measure.session.job import Rank
from pipeprof.measure.storage.real import MemoryStorage
from pipeprof.scenario import LoaderPart, Scenario
from tests.measure.session.loader_cases import PlainSession

STORAGE = MemoryStorage("ssd")  # reads files as they lie


def scenario(format_: str = "jpeg_folder", **data: Any) -> Scenario:
    made = {} if format_ in ("image_folder", "imported") else {"sample_bytes": 8000}
    return Scenario(name="x", data={"format": format_, "samples": 60, "crop": 32, **made, **data})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of this file: none of them changes what is in it."""
    directory = tmp_path_factory.getbasetemp() / "pipeprof-cache"
    monkeypatch.setenv("PIPEPROF_CACHE", str(directory))
    return directory


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own images: a copy of a made set."""
    return Path(shutil.copytree(dataset_files(scenario()).root, tmp_path / "own"))


def failure(loader: DataLoader[Any]) -> str:
    """What reading it all says; the workers are gone then (torch joins them when their iterator goes)."""
    said = ""
    try:
        list(loader)
    except DataError as error:
        said = str(error)
        traceback.clear_frames(error.__traceback__)  # they hold the iterator
    gc.collect()
    return said


def test_files_labels_and_pixels_are_those_of_torchvisions_image_folder() -> None:
    files = dataset_files(scenario())
    ours = open_dataset(scenario(), STORAGE)
    theirs = ImageFolder(str(files.root))
    ours.transform = theirs.transform = np.asarray  # type: ignore[attr-defined]
    assert [(str(path), files.label(i)) for i, path in enumerate(files)] == theirs.samples
    assert len(ours) == len(theirs) == 60
    for (pixels, label), (expected, expected_label) in zip(
        (ours[i] for i in (0, 17, 59)), (theirs[i] for i in (0, 17, 59)), strict=True
    ):
        assert label == expected_label
        np.testing.assert_array_equal(pixels, expected)


def test_images_come_cropped_and_normalised() -> None:
    image, label = open_dataset(scenario(), STORAGE)[0]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 0)
    assert float(image.min()) < 0 < float(image.max())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_draws_the_same_crops(workers: int) -> None:
    def epoch() -> list[torch.Tensor]:
        torch.manual_seed(7)
        loader = DataLoader(open_dataset(scenario(), STORAGE), 16, shuffle=True, num_workers=workers)
        return [images for images, _ in loader]

    assert all(torch.equal(a, b) for a, b in zip(epoch(), epoch(), strict=True))


def test_tensors_are_the_files_arrays() -> None:
    made = scenario("tensor_files", sample_bytes=4000)
    values, label = open_dataset(made, STORAGE)[23]
    path = dataset_files(made)[23]
    assert torch.equal(values, torch.from_numpy(np.load(path)))
    assert (values.shape, f"class_{label}") == ((1000,), path.parent.name)


@pytest.mark.parametrize("workers", [0, 3])
def test_shards_give_each_sample_once_whoever_reads_them(workers: int) -> None:
    dataset = open_dataset(scenario("tar_shards"), STORAGE)
    dataset.transform = lambda image: torch.tensor(np.asarray(image)[:4, :4].astype(np.int64).sum())  # type: ignore[attr-defined]
    labels: Counter[int] = Counter()
    seen: list[int] = []
    for sums, classes in DataLoader(dataset, 7, num_workers=workers):
        seen += sums.tolist()
        labels.update(classes.tolist())
    assert labels == dict.fromkeys(range(10), 6)
    jpegs = open_dataset(scenario(), STORAGE)
    jpegs.transform = dataset.transform  # type: ignore[attr-defined]
    assert sorted(seen) == sorted(int(jpegs[i][0]) for i in range(60))  # the same images as jpeg_folder's


@pytest.mark.parametrize("workers", [0, 2])
def test_the_ranks_of_a_job_share_the_shards_out(workers: int) -> None:
    """Shuffled: all ranks and their workers draw the same order, and each takes its own part of it."""
    seen: list[list[int]] = []
    for rank in (0, 1):
        torch.manual_seed(1)
        dataset: Any = open_dataset(scenario("tar_shards"), STORAGE)
        dataset.transform = lambda image: torch.tensor(np.asarray(image)[:4, :4].astype(np.int64).sum())
        peers: Any = SimpleNamespace(rank=Rank(rank, 2, rank, 2, 0, 0), count=2)
        part = LoaderPart(workers=workers, batch_size=7, drop_last=False)
        loader = make_loader(PlainSession(), dataset, part, 3, peers)  # type: ignore[arg-type]
        seen.append([int(each) for sums, _ in loader for each in sums])
    jpegs: Any = open_dataset(scenario(), STORAGE)
    jpegs.transform = dataset.transform
    assert min(map(len, seen)) > 0
    assert sorted(chain(*seen)) == sorted(int(jpegs[i][0]) for i in range(60))


def test_shards_are_shuffled_anew_each_epoch_and_by_the_seed() -> None:
    def epochs(shuffle: bool) -> list[list[int]]:
        torch.manual_seed(1)
        parts = scenario("tar_shards").model_dump(by_alias=True)
        dataset = open_dataset(Scenario(**{**parts, "loader": {"shuffle": shuffle}}), STORAGE)
        return [[label for _, label in dataset] for _ in range(2)]

    first, second = epochs(shuffle=True)
    assert first != second
    assert [first, second] == epochs(shuffle=True)
    assert epochs(shuffle=False) == [[i % 10 for i in range(60)]] * 2


def test_ones_own_images_in_class_directories_nested_or_flat(own: Path) -> None:
    Image.new("L", (50, 40)).save(own / "class_3" / "grey.png")
    (own / "class_3" / "deeper").mkdir()
    Image.new("RGBA", (50, 40)).save(own / "class_3" / "deeper" / "alpha.PNG")
    (own / "notes.txt").write_text("no image")
    (own / ".hidden.jpg").write_text("no image")
    files = dataset_files(scenario("image_folder", path=str(own), samples=100))
    assert len(files) == 62
    images = open_dataset(scenario("image_folder", path=str(own), samples=100), STORAGE)
    assert default_collate([images[i] for i in range(62)])[0].shape == (62, 3, 32, 32)
    assert {files.label(i) for i, path in enumerate(files) if "class_3" in str(path)} == {3}

    flat = own / "class_3"
    shutil.rmtree(flat / "deeper")
    files = dataset_files(scenario("image_folder", path=str(flat)))
    assert len(files) == 7
    assert {files.label(i) for i in range(7)} == {0}


def test_of_more_images_than_samples_each_class_keeps_its_share(own: Path) -> None:
    files = dataset_files(scenario("image_folder", path=str(own), samples=20))
    assert Counter(files.label(i) for i in range(20)) == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "there is no directory"),
        (lambda p: p.write_text(""), "is not a directory"),
        (lambda p: p.mkdir(), r"holds no file that ends in \.jpg"),
    ],
)
def test_a_path_without_images_is_one_clear_error(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        dataset_files(scenario("image_folder", path=str(tmp_path / "images")))


@pytest.mark.parametrize(
    ("damage", "message", "workers"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "cannot be read: .*truncated", 0),
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "cannot be read: .*truncated", 1),
        (lambda p: p.write_bytes(b"\x00" * 500), "cannot be read: .*cannot identify", 0),
        (lambda p: p.write_bytes(b""), "cannot be read: .*cannot identify", 0),
        (lambda p: p.unlink(), "cannot be read: .*No such file", 0),
    ],
)
def test_a_bad_image_is_named_with_its_index_also_by_a_worker(
    own: Path, damage: Any, message: str, workers: int
) -> None:
    parts = scenario("image_folder", path=str(own))
    dataset, bad = open_dataset(parts, STORAGE), dataset_files(parts)[37]
    damage(bad)
    said = failure(DataLoader(dataset, 20, num_workers=workers))
    assert re.match(f"sample 37 {message}", said)
    assert str(bad) in said
    assert "Traceback" not in said
    assert "file" in said.splitlines()[-1]  # the remedy


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_in_a_shard_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path))
    parts = scenario("tar_shards")
    shard = dataset_files(parts)[2]
    with tarfile.open(shard) as tar:
        offset = tar.getmember("00000009.jpg").offset_data
    content = bytearray(shard.read_bytes())
    content[offset : offset + 5000] = b"\x00" * 5000
    shard.write_bytes(content)
    loader = DataLoader(open_dataset(parts, STORAGE), 5, num_workers=workers)
    assert re.match("sample 9 cannot be read: .*shard-000002.tar, 00000009.jpg", failure(loader))


def test_a_torn_shard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path))
    loader = DataLoader(open_dataset(scenario("tar_shards"), STORAGE), 5)
    shard = dataset_files(scenario("tar_shards"))[2]
    shard.write_bytes(shard.read_bytes()[:20_000])
    assert re.match("sample (8|9|10) cannot be read: .*shard-000002.tar", failure(loader))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_a_made_set_that_is_not_whole_is_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path))
    damage(dataset_files(scenario())[5])
    with pytest.raises(DataError, match=r"damaged: 60 files of \d+ bytes were made, (59|60) of \d+ bytes"):
        dataset_files(scenario())


@pytest.mark.parametrize("format_", ["jpeg_folder", "tensor_files", "tar_shards"])
def test_the_facts_of_a_set(format_: str) -> None:
    facts = describe_data(scenario(format_))
    assert (facts.format, facts.samples) == (format_, 60)
    assert facts.mean_bytes == pytest.approx(8000, rel=0.05)
    assert 1_000 < facts.mean_decode_ns < 1e9


def test_the_facts_of_ones_own_images(own: Path) -> None:
    sizes = [path.stat().st_size for path in own.glob("class_*/*.jpg")]
    facts = describe_data(scenario("image_folder", path=str(own)))
    assert (facts.samples, facts.mean_bytes, facts.path) == (60, sum(sizes) / 60, str(own))


def test_a_bad_image_among_those_whose_decoding_is_timed_is_named(own: Path) -> None:
    parts = scenario("image_folder", path=str(own))
    dataset_files(parts)[0].write_bytes(b"no image")
    with pytest.raises(DataError, match=f"^sample 0 cannot be read: {own}"):
        describe_data(parts)


def test_paths_do_not_become_python_strings_until_they_are_asked_for() -> None:
    table = dataset_files(scenario())
    held = [value for value in vars(table).values() if isinstance(value, np.ndarray)]
    assert sum(value.nbytes for value in held) < 60 * 64
    assert not any(value.dtype == object for value in held)
