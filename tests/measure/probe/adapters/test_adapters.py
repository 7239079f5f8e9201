"""Stages of other people's libraries, on the real libraries: `uv sync --group libraries` brings them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import pipeprof
from pipeprof.measure.probe import adapters
from pipeprof.measure.probe.adapters import hdf5, pyav
from pipeprof.measure.probe.adapters.staged import called, staged
from pipeprof.record.reader import load


class Calls(Dataset[Any]):
    """Two samples, each made by a call."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return self.make()


def observed(make: Callable[[], Any], out: Path) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Stages and counters of two samples, which are as without us; all that was replaced is put back."""
    plain = make()
    before = [vars(owner).get(name) for owner, name in replaced()]
    loader = DataLoader(Calls(make), batch_size=None)
    with pipeprof.profile(loader, out=out):
        for sample in loader:
            np.testing.assert_array_equal(np.asarray(sample), np.asarray(plain))
    assert [vars(owner).get(name) for owner, name in replaced()] == before
    run = load(out)
    stages: dict[str, dict[str, int]] = {}
    for row in run.table("stages").to_pylist():
        into = stages.setdefault(row["stage"], {"wall_ns": 0, "count": 0, "bytes": 0})
        for name in into:
            into[name] += row[name] or 0
    counters: dict[str, int] = {}
    for row in run.table("counters").to_pylist():
        counters[row["counter"]] = counters.get(row["counter"], 0) + row["value"]
    return stages, counters


def replaced() -> list[tuple[Any, str]]:
    """The owner and the name of each seam whose library is loaded."""
    from pipeprof.measure.probe.auto_stages import _loaded

    found = [(_loaded(module), name) for module, name, _ in adapters.SEAMS]
    return [(owner, name) for owner, name in found if owner is not None]


def assert_twice(stages: dict[str, dict[str, int]], *names: str) -> None:
    for name in names:
        assert stages[name]["count"] == 2
        assert stages[name]["wall_ns"] > 0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), noise)
    return tmp_path / "picture.png"


def test_opencv(picture: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")

    def make() -> Any:
        read = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
        decoded = cv2.imdecode(np.fromfile(picture, np.uint8), cv2.IMREAD_COLOR)
        return cv2.resize(read, (10, 8)) + cv2.resize(decoded, (10, 8))

    stages, counters = observed(make, tmp_path / "run")
    assert_twice(stages, "transform:cvtColor")
    assert stages["decode"]["count"] == stages["transform:resize"]["count"] == 4
    names = ("decode.pictures", "decode.pixels", "shrink.pixels", "open.count")
    assert [counters[name] for name in names] == [4, 32_000, 320, 2]


def test_opencv_without_a_picture(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    stages, counters = observed(lambda: cv2.imread(str(tmp_path / "absent.png")) is None, tmp_path / "run")
    assert_twice(stages, "decode")
    assert "decode.pictures" not in counters


def test_albumentations(picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("albumentations")
    cv2 = pytest.importorskip("cv2")
    import albumentations as albu

    pipeline = albu.Compose([albu.Resize(8, 10), albu.OneOf([albu.VerticalFlip(p=1.0)], p=1.0)])
    stages, _ = observed(lambda: pipeline(image=cv2.imread(str(picture)))["image"], tmp_path / "run")
    assert_twice(stages, "decode", "transform:Resize", "transform:VerticalFlip")
    assert "transform:resize" not in stages, "OpenCV's part of a transform is the transform's"


def test_monai(tmp_path: Path) -> None:
    transforms = pytest.importorskip("monai.transforms")
    volume = np.arange(512, dtype=np.float32).reshape(1, 8, 8, 8)
    pipeline = transforms.Compose(
        [transforms.CenterSpatialCropd(keys="x", roi_size=4), transforms.ScaleIntensityd(keys="x")]
    )
    stages, _ = observed(lambda: np.asarray(pipeline({"x": volume})["x"]), tmp_path / "run")
    assert_twice(stages, "transform:CenterSpatialCropd", "transform:ScaleIntensityd")


def test_h5py(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(1000)

    def make() -> Any:
        with h5py.File(name=tmp_path / "a.h5", mode="r") as file:
            return file["x"][100:200]

    stages, counters = observed(make, tmp_path / "run")
    assert_twice(stages, "read")
    assert stages["read"]["bytes"] == 2 * 800
    assert counters["open.count"] == 2
    assert counters["open.repeated_parse_ns"] > 0


def test_chunks_that_are_unpacked_for_a_part_of_them(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rows = np.arange(4000.0).reshape(1000, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("packed", data=rows, chunks=(100, 4), compression="gzip")
        file.create_dataset("plain", data=rows, chunks=(100, 4))
    file = h5py.File(tmp_path / "a.h5", "r")
    of_chunk, of_row = 100 * 4 * 8, 4 * 8

    def make() -> Any:
        kept = file["packed"], file["packed"]
        parts = [
            file["plain"][250],
            kept[0][250],
            kept[0][255],
            kept[1][[1, 2, 3]][0],
            kept[0][0:1000:250][0],
        ]
        return np.stack(parts)

    _, counters = observed(make, tmp_path / "run")
    file.close()
    # row 255 lies in the chunk of 250, which HDF5 keeps; what a list selects is not counted
    apart = (of_chunk - of_row) + (8 * of_chunk - 4 * of_row)
    assert counters["skip.bytes"] == 2 * apart
    assert counters["skip.ns"] > 0


@pytest.mark.parametrize(
    ("selection", "chunks"),
    [
        (7, [0, 0]),
        (-1, [9, 9]),
        (slice(5, 25), [0, 2]),
        ((slice(5, 25), 3), [0, 2]),
        ((..., 3), [0, 9]),
        ([1, 2], None),
        ("field", None),
    ],
)
def test_chunks_of_a_selection(selection: Any, chunks: list[int] | None) -> None:
    if chunks is None:
        with pytest.raises(TypeError):
            hdf5.touched(selection, (100, 4), (10, 4))
        return
    rows, columns = hdf5.touched(selection, (100, 4), (10, 4))
    assert list(columns) == [0]
    assert [rows[0], rows[-1]] == chunks


def test_readers_of_monai(tmp_path: Path) -> None:
    transforms = pytest.importorskip("monai.transforms")
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    np.save(tmp_path / "a.npy", volume)
    pipeline = transforms.Compose([transforms.LoadImaged(keys=("x", "y"), image_only=True)])

    def make() -> Any:
        loaded = pipeline({"x": str(tmp_path / "a.nii.gz"), "y": str(tmp_path / "a.npy")})
        return np.asarray(loaded["x"]) + np.asarray(loaded["y"])

    stages, _ = observed(make, tmp_path / "run")
    assert_twice(stages, "transform:LoadImaged")
    assert stages["read"]["count"] >= 8, "each file in `read` and in `get_data`"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(5))
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for shade in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 50 * shade, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return tmp_path / "film.mp4"


def test_pyav(film: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")

    def make() -> Any:
        with av.open(str(film)) as file:
            return np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)])

    stages, counters = observed(make, tmp_path / "run")
    assert stages["decode"]["count"] >= 8
    assert counters["decode.pictures"] == 8
    assert counters["decode.pixels"] == 8 * 32 * 16


def test_frames_that_are_left_early_are_let_go() -> None:
    closed = []

    def frames() -> Iterator[Any]:
        try:
            while True:
                yield SimpleNamespace(width=4, height=4)
        finally:
            closed.append(True)

    given = pyav._frames(frames())
    next(given)
    given.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_tokenizers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(words)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")

    def make() -> Any:
        return plain.encode("a b").ids + fast("b a")["input_ids"]

    stages, _ = observed(make, tmp_path / "run")
    assert_twice(stages, "transform:Tokenizer", f"transform:{type(fast).__name__}")


def test_torchaudio(tmp_path: Path) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    pytest.importorskip("torchcodec", reason="torchaudio reads files through torchcodec")
    import torch

    torchaudio.save(str(tmp_path / "a.wav"), torch.zeros(1, 800), 8000)
    stages, _ = observed(lambda: torchaudio.load(str(tmp_path / "a.wav"))[0], tmp_path / "run")
    assert_twice(stages, "decode")


def test_a_call_that_fails_fails_as_ever() -> None:
    def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        staged(called("decode"))(broken)()
