"""`pipeprof.emulate`: whoever opens a file under the directory through Python gets the emulated device."""

from __future__ import annotations

import builtins
import errno
import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import pipeprof
from pipeprof.devices import StorageModel
from pipeprof.errors import MeasureError, ScenarioError
from pipeprof.measure.storage.slow_directory import EmulatedReader, Emulation

FAST = StorageModel("fast", "ssd", "parallel", 1e12, latency_ns=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "outside.bin").write_bytes(b"outside")
    return tmp_path / "set"


def opens_emulated(path: Path) -> bool:
    with path.open("rb") as file:
        return isinstance(file, EmulatedReader)


def requests(emulation: Emulation) -> int:
    return int(emulation.storage.device.facts().requests)


def test_reads_under_the_directory_cost_what_the_device_asks(root: Path) -> None:
    with pipeprof.emulate(FAST, path=root) as disk:
        assert open(root / "a.bin", "rb").read() == bytes(range(256)) * 100  # noqa: PTH123, SIM115
        assert requests(disk) == 1
        assert (root / "a.bin").read_bytes()[:3] == b"\0\1\2"
        assert requests(disk) == 2
        with io.open(str(root / "a.bin"), "rb", buffering=0) as raw:  # noqa: UP020
            assert raw.read(5) == bytes(range(5))
        assert requests(disk) == 3
        (root.parent / "outside.bin").read_bytes()
        (root / "new.txt").write_text("written as ever")
        assert (root / "new.txt").read_text() == "written as ever"
        assert requests(disk) == 3


def test_open_is_put_back(root: Path) -> None:
    before = builtins.open, io.open
    disk = pipeprof.emulate(FAST, path=root)
    assert (builtins.open, io.open) != before
    assert opens_emulated(root / "a.bin")
    inner = pipeprof.emulate(FAST, path=root)
    disk.stop()
    assert opens_emulated(root / "a.bin")
    inner.stop()
    inner.stop()
    assert (builtins.open, io.open) == before
    assert not opens_emulated(root / "a.bin")
    assert disk.describe()["emulator"]["requests"] == 0, "it still tells, once stopped"


def test_links_and_relative_paths_lead_there_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "link").symlink_to(root)
    monkeypatch.chdir(root.parent)
    with pipeprof.emulate(FAST, path="link") as disk:
        for name in ("set/a.bin", "./link/a.bin", "set/../set/a.bin"):
            Path(name).read_bytes()
        open(b"set/a.bin", "rb").close()  # noqa: PTH123
    assert disk.describe()["emulator"]["requests"] == 3


def test_links_elsewhere_lead_there_too(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    (root.parent / "one.bin").symlink_to(root / "a.bin")
    (root.parent / "other.bin").symlink_to(root.parent / "outside.bin")
    with pipeprof.emulate(FAST, path=root) as disk:
        for name in ("alias/a.bin", "one.bin", "other.bin"):
            (root.parent / name).read_bytes()
    assert disk.describe()["emulator"]["requests"] == 2


def test_the_usual_libraries_come_through_it(root: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(root / "a.jpg")
    np.save(root / "a.npy", np.arange(1000))
    (root / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    with tarfile.open(root / "a.tar", "w") as tar:
        tar.add(root / "a.jpg", "a.jpg")
    with pipeprof.emulate(FAST, path=root) as disk:
        for read in (
            lambda: Image.open(root / "a.jpg").convert("RGB").getpixel((0, 0)),
            lambda: np.load(root / "a.npy").sum(),
            lambda: pickle.load((root / "a.pkl").open("rb")),
        ):
            before = requests(disk)
            read()
            assert requests(disk) > before
        with tarfile.open(root / "a.tar", "r:") as tar:
            assert isinstance(tar.fileobj, EmulatedReader)


def test_the_file_is_a_file_like_any_other(root: Path) -> None:
    (root / "lines").write_bytes(b"one\ntwo\nthree")
    with pipeprof.emulate(FAST, path=root), (root / "lines").open("rb") as file:
        assert list(file) == [b"one\n", b"two\n", b"three"]
        assert file.seek(4) == 4
        assert file.readline() == b"two\n"
        assert file.tell() == 8
        assert file.peek(1)[:1] == b"t"  # type: ignore[attr-defined]
        assert (file.readable(), file.writable(), file.seekable(), file.mode) == (True, False, True, "rb")
        buffer = bytearray(5)
        assert file.readinto(buffer) == 5  # type: ignore[attr-defined]
        assert file.read() == b""
        assert bytes(buffer) == b"three"
    assert file.closed


def test_who_goes_round_it_is_told(root: Path) -> None:
    np.save(root / "a.npy", np.arange(1000))
    with pipeprof.emulate(FAST, path=root) as disk:
        with pytest.warns(UserWarning, match="does not slow reads through a descriptor"):
            assert np.load(root / "a.npy", mmap_mode="r").sum() == 499_500
        assert any("native code" in each for each in disk.not_seen)
        assert disk.describe()["not_seen"] == list(disk.not_seen)


class Files(Dataset[int]):
    """Opens a file by itself, as a user's data set does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return len(self.path.read_bytes())


@pytest.mark.parametrize(
    ("workers", "method"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
def test_all_workers_share_the_device_under_any_start_method(
    root: Path, workers: int, method: str | None
) -> None:
    with pipeprof.emulate(FAST, path=root) as disk:
        loader = DataLoader(Files(root / "a.bin"), num_workers=workers, multiprocessing_context=method)
        assert sum(int(batch) for batch in loader) == 6 * 25_600
        assert requests(disk) == 6


def test_a_worker_init_function_still_runs(root: Path, tmp_path: Path) -> None:
    def note(worker: int) -> None:
        (tmp_path / f"worker-{worker}").touch()

    with pipeprof.emulate(FAST, path=root):
        list(
            DataLoader(
                Files(root / "a.bin"), num_workers=2, multiprocessing_context="fork", worker_init_fn=note
            )
        )
    assert {path.name for path in tmp_path.glob("worker-*")} == {"worker-0", "worker-1"}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"device": "hdd-72000"}, ScenarioError, "did you mean hdd-7200"),
        ({"device": "hdd", "bandwidth_bytes_per_s": 0}, ScenarioError, "bandwidth_bytes_per_s is 0"),
        ({"device": "hdd", "seek_ns": -1}, ScenarioError, "seek_ns is -1"),
        ({"device": "hdd", "path": "none"}, MeasureError, "does not exist"),
        ({"device": "hdd", "path": "set/a.bin"}, MeasureError, "is not a directory"),
    ],
)
def test_a_bad_call_gets_one_error_and_changes_nothing(
    root: Path,
    arguments: dict[str, object],
    error: type[Exception],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root.parent)
    before = builtins.open
    with pytest.raises(error, match=says):
        pipeprof.emulate(**{"path": root, **arguments})  # type: ignore[arg-type]
    assert builtins.open is before


def test_an_unreadable_directory_gets_one_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pipeprof.measure.storage.slow_directory.os.scandir", refuse)  # root may always
    with pytest.raises(MeasureError, match="set cannot be read: Permission denied"):
        pipeprof.emulate(FAST, path=root)


def test_nothing_is_warned_of_without_cause(root: Path) -> None:
    with warnings.catch_warnings(), pipeprof.emulate(FAST, path=root):
        warnings.simplefilter("error")
        (root / "a.bin").read_bytes()
