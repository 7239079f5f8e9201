"""Made once, whole or not at all, with the size that was asked for."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from pipeprof.errors import DataError
from pipeprof.measure.data import generate
from pipeprof.measure.data.generate import cache_root, made_set, set_facts
from pipeprof.measure.data.synthetic import JPEG_BYTES, image_recipe, tensor_recipe
from pipeprof.scenario import Scenario

MAKE = """
import sys
from pipeprof.measure.data.generate import made_set
from pipeprof.scenario import Scenario
data = {"samples": int(sys.argv[1]), "sample_bytes": 8000}
directory = made_set(Scenario(name="x", data=data))
print(directory, (directory / "set.json").stat().st_ino)
"""


def scenario(**data: object) -> Scenario:
    return Scenario(name="x", data={"samples": 40, "sample_bytes": 8000, **data})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path))
    return tmp_path / "data"


def digest(directory: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        whole.update(path.name.encode() + (path.read_bytes() if path.is_file() else b""))
    return whole.hexdigest()


@pytest.mark.parametrize(
    "wanted",
    [3_000, *(pytest.param(wanted, marks=pytest.mark.slow) for wanted in (20_000, JPEG_BYTES, 200_000))],
)
def test_the_mean_size_is_what_was_asked_for(wanted: int) -> None:
    recipe = image_recipe(seed=3, sample_bytes=None if wanted == JPEG_BYTES else wanted)
    sizes = [len(recipe.encode(index)) for index in range(100, 180)]  # others than those it was steered by
    assert sum(sizes) / len(sizes) == pytest.approx(wanted, rel=0.02)
    assert max(sizes) > 1.1 * min(sizes)  # files differ in size, as photographs do


@pytest.mark.slow
def test_default_images_are_like_imagenets_in_pixels_and_no_two_are_alike() -> None:
    recipe = image_recipe(seed=0, sample_bytes=None)
    files = [recipe.encode(index) for index in range(50)]
    assert len(set(files)) == 50
    image = Image.open(io.BytesIO(files[0]))
    assert (image.size, image.mode, image.format) == ((500, 375), "RGB", "JPEG")
    assert image_recipe(seed=1, sample_bytes=None).encode(0) != files[0]


def test_an_impossibly_small_or_large_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"sample_bytes is 100: .*\n.*tensor_files"):
        image_recipe(seed=0, sample_bytes=100)
    with pytest.raises(DataError, match=r"sample_bytes is 60000000: .*\n.*50\.0 MB or less"):
        image_recipe(seed=0, sample_bytes=60_000_000)


@pytest.mark.parametrize(
    ("sample_bytes", "shape"), [(None, (3, 224, 224)), (4000, (1000,)), (3 * 64 * 64 * 4, (3, 64, 64))]
)
def test_tensors_are_crops_or_flat(sample_bytes: int | None, shape: tuple[int, ...]) -> None:
    assert tensor_recipe(0, sample_bytes, crop=224).shape == shape


def test_a_set_is_made_once_and_named_by_what_it_is(cache: Path) -> None:
    first = made_set(scenario())
    made_at = (first / "set.json").stat().st_mtime_ns
    assert made_set(scenario()) == first
    assert (first / "set.json").stat().st_mtime_ns == made_at
    others = {made_set(scenario(**other)) for other in ({"seed": 1}, {"samples": 41}, {"sample_bytes": 9000})}
    assert len(others | {first}) == 4
    assert all(path.parent == cache for path in others)


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["jpeg_folder", "tensor_files", "tar_shards"])
def test_another_process_makes_the_same_set(format_: str, tmp_path: Path, cache: Path) -> None:
    here = made_set(scenario(format=format_))
    script = MAKE.replace('"sample_bytes"', f'"format": "{format_}", "sample_bytes"')
    environment = {**os.environ, "PIPEPROF_CACHE": str(tmp_path / "other")}
    subprocess.run(
        [sys.executable, "-c", script, "40"], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    there = tmp_path / "other" / "data" / here.name
    assert digest(here) == digest(there)
    assert set_facts(here)["files"] == {"jpeg_folder": 40, "tensor_files": 40, "tar_shards": 14}[format_]


@pytest.mark.slow
def test_a_killed_generation_is_never_taken_for_a_set(cache: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", MAKE, "3000"])
    try:
        deadline = time.monotonic() + 60
        while len(list(cache.glob(".*.partial/class_0/*.jpg"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert list(cache.glob(".*.partial"))  # it did die in the middle
    assert not list(cache.glob("jpeg*"))

    whole = made_set(scenario(samples=3000))
    assert len(list(whole.glob("class_*/*.jpg"))) == set_facts(whole)["files"] == 3000
    assert not list(cache.glob(".*.partial"))


@pytest.mark.slow
def test_of_two_processes_the_second_waits_for_the_firsts_set(cache: Path) -> None:
    command = [sys.executable, "-c", MAKE, "1500"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][0] == said[1][0] != ""  # the same directory, and the same file in it
    assert sum("waiting" in errors for _, errors in said) == 1
    assert not list(cache.glob(".*.partial"))
    assert len(list(cache.glob("jpeg*/class_*/*.jpg"))) == 1500


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(generate.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"40 samples need \d+ KB, and .* has 100 KB free"):
        made_set(scenario())
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def fills_up(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(DataError, match="no room left"):
        made_set(scenario())
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_a_full_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        monkeypatch.setenv("PIPEPROF_CACHE", str(small))
        with pytest.raises(DataError, match=r"need .* free"):
            made_set(scenario(samples=100))
        monkeypatch.setattr(generate, "_check_room", lambda *_: None)
        with pytest.raises(DataError, match="no room left"):
            made_set(scenario(samples=100))
        assert [path.suffix for path in (small / "data").iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_cache_that_is_a_file_or_may_not_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIPEPROF_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep a data set .*\n.*PIPEPROF_CACHE"):
        made_set(scenario())


def test_a_damaged_record_of_a_set_says_what_to_do() -> None:
    directory = made_set(scenario())
    (directory / "set.json").write_text("{")
    with pytest.raises(DataError, match="delete it"):
        set_facts(directory)


def test_where_sets_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root(scenario()) == tmp_path / "data"
    monkeypatch.delenv("PIPEPROF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root(scenario()) == Path("/somewhere/pipeprof/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root(scenario()) == Path("/home/someone/.cache/pipeprof/data")
    real = Scenario(name="x", storage={"path": str(tmp_path)})
    assert cache_root(real) == tmp_path / "pipeprof-data"
