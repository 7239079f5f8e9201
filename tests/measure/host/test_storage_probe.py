"""The storage probe on small files: it reads as the run did, leaves nothing, and says what it cannot do."""

from __future__ import annotations

import http.server
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fsspec import AbstractFileSystem, register_implementation

from pipeprof.cli import cli
from pipeprof.errors import MeasureError
from pipeprof.measure.host.open_files import data_files
from pipeprof.measure.host.storage_probe import Plan, plan_of, probe_files, probe_storage
from pipeprof.measure.session.session import Session
from pipeprof.record.added.storage_probe import read_probe
from pipeprof.record.reader import load
from tests.factory import make_run

BRIEF_S = 0.02


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two directories of small files, as an ImageFolder has them."""
    for number in range(40):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(20_000))
    (tmp_path / "photos" / "class0" / "notes.txt").write_text("not a photo")
    return tmp_path / "photos"


def run_over(directory: Path, *files: tuple[Path, str], **meta: Any) -> Path:
    """A run that was made from these files."""
    kept = [{"path": str(path), "size_bytes": path.stat().st_size, "how": how} for path, how in files]
    real = {"tier": None, "emulated": False, "model": None}
    return make_run(directory, **{"storage": real, "emulated": [], "reading": {"files": kept}, **meta})


def below(path: Path) -> dict[str, tuple[int, int]]:
    return {
        str(each): (each.stat().st_size, each.stat().st_mtime_ns)
        for each in path.rglob("*")
        if each.is_file()
    }


def test_small_files_are_read_whole_and_those_like_them_too(tmp_path: Path, photos: Path) -> None:
    run = load(run_over(tmp_path / "run", (photos / "class0" / "0.jpg", "read")))
    plan = plan_of(run)
    assert plan.how == "whole"
    assert {path.suffix for path in plan.files} == {".jpg"}
    assert len(plan.files) == 40, "of all classes"
    assert plan.request_bytes >= 20_000, "in a single request, as the run's reads of 110 KB"


def test_files_that_were_read_in_pieces_are_read_so(tmp_path: Path) -> None:
    path = tmp_path / "data" / "0.jpg"
    path.parent.mkdir()
    path.write_bytes(bytes(440_000))
    plan = plan_of(load(run_over(tmp_path / "run", (path, "read"))))
    assert plan.first_bytes == 4096, "as much as Python's buffer holds"
    assert plan.request_bytes == pytest.approx((440_000 - 4096) / 3, rel=0.02)
    assert probe_files(plan, BRIEF_S).points[0].bytes_per_s > 0


def test_a_probe_reads_and_leaves_nothing(photos: Path) -> None:
    before, threads = below(photos), threading.active_count()
    plan = Plan("whole", tuple(photos.rglob("*.jpg")), 8192)
    probe = probe_files(plan, BRIEF_S)
    assert [(point.readers, point.paused) for point in probe.points] == [
        (1, False), (1, True), (2, False), (4, False), (8, False), (16, False)
    ]  # fmt: skip
    assert all(point.bytes_per_s > 0 and point.reads > 0 for point in probe.points)
    assert below(photos) == before
    assert threading.active_count() == threads


@pytest.mark.parametrize("how", ["random", "mapped"])
def test_pieces_of_a_large_file(tmp_path: Path, how: str) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(os.urandom(1 << 20))
    probe = probe_files(Plan(how, (path,), 4096), BRIEF_S)
    assert probe.how == how
    assert set(probe.curve(of_device=False)) == {1, 2, 4, 8, 16}
    assert all(rate > 0 for rate in probe.curve(of_device=False).values())


def test_a_mapped_file_is_probed_through_a_map(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(2 << 20))
    run = load(run_over(tmp_path / "run", (path, "mapped")))
    assert plan_of(run).how == "mapped"
    assert plan_of(run).request_bytes == 3 * 224 * 224 * 4, "a sample as it lies in a batch"


def test_predict_probes_and_keeps_the_curve(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeprof.measure.host.storage_probe.POINT_S", BRIEF_S)
    directory = run_over(tmp_path / "run", (photos / "class0" / "0.jpg", "read"))
    done = CliRunner().invoke(cli, ["predict", str(directory), "--probe", "--set", "loader.workers=4"])
    assert done.exit_code == 0, done.output
    assert "probe" in done.output
    probe = read_probe(directory)
    assert probe is not None
    assert probe.took_s < 6


def test_a_run_without_files_is_one_clear_error(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    with pytest.raises(MeasureError, match="names no file"):
        plan_of(load(directory))
    done = CliRunner().invoke(cli, ["predict", str(directory), "--probe"])
    assert isinstance(done.exception, MeasureError) or done.exit_code == 2


def test_files_that_are_gone_are_one_clear_error(tmp_path: Path, photos: Path) -> None:
    directory = run_over(tmp_path / "run", (photos / "class0" / "0.jpg", "read"))
    for path in photos.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(MeasureError, match="can be read here"):
        plan_of(load(directory))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_files_that_are_mapped_or_held_are_seen_from_outside(tmp_path: Path) -> None:
    mapped, held, written = (tmp_path / name for name in ("mapped.bin", "held.bin", "written.bin"))
    for path in (mapped, held, written):
        path.write_bytes(bytes(1 << 20))
    with mapped.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with held.open("rb"), written.open("ab"):
        seen = {
            each.path: each.how for each in data_files(os.getpid()) if each.path.startswith(str(tmp_path))
        }
    view.close()
    assert seen == {str(mapped): "mapped", str(held): "held"}
    assert not [each for each in data_files(os.getpid()) if each.path.endswith((".so", ".py"))]


class Far(AbstractFileSystem):
    """A remote place: every object holds 50,000 bytes, but for those that are gone."""

    protocol = "far"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if path.endswith("gone"):
            raise RuntimeError("404")
        return bytes(50_000)[start:end]

    def walk(self, path: str, **_: Any) -> Iterator[Any]:  # type: ignore[override]
        yield path, [], ["a", "b"]


@pytest.fixture
def far() -> None:
    register_implementation("far", Far, clobber=True)


def run_from(directory: Path, *urls: str, **storage: Any) -> Path:
    files = [{"path": url, "size_bytes": 50_000, "how": "url"} for url in urls]
    place = {"tier": None, "emulated": False, "model": None, **storage}
    return make_run(directory, storage=place, emulated=[], reading={"files": files})


@pytest.mark.usefixtures("far")
def test_objects_are_read_through_their_client(tmp_path: Path) -> None:
    run = load(run_from(tmp_path / "run", "far://bucket/a", "far://bucket/gone"))
    plan = plan_of(run)
    assert (plan.how, plan.urls) == ("url", ("far://bucket/a", "far://bucket/gone"))
    probe = probe_files(plan, BRIEF_S)
    assert (probe.how, probe.cold, probe.files) == ("url", "remote", 2)
    assert not probe.counts_device, "no block device of this machine"
    assert set(probe.curve(of_device=False)) == {1, 2, 4, 8, 16}
    assert all(point.bytes_per_s > 0 for point in probe.points)


@pytest.mark.usefixtures("far")
def test_objects_of_a_scenarios_place_are_listed(tmp_path: Path) -> None:
    run = load(run_from(tmp_path / "run", remote=True, path="far://bucket/set", tier="network"))
    assert plan_of(run).urls == ("far://bucket/set/a", "far://bucket/set/b")


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("far://bucket/gone", "nothing could be read"),
        ("memory://a", "is not a remote location"),
        ("file:///etc/passwd", "is not a remote location"),
        ("simplecache::far://a", "is not a remote location"),
        ("nosuch://a", "cannot be read"),
    ],
)
def test_what_is_no_remote_place_is_one_clear_error(url: str, said: str, tmp_path: Path) -> None:
    run = load(run_from(tmp_path / "run", url))
    with pytest.raises(MeasureError, match=said):
        probe_files(plan_of(run), BRIEF_S)


class Objects(http.server.BaseHTTPRequestHandler):
    """A web server whose every object holds 20,000 bytes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "20000")
        self.end_headers()
        self.wfile.write(bytes(20_000))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class Fetched:
    """Samples from that server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        import fsspec

        return len(fsspec.filesystem("http").cat_file(f"{self.url}/{index}"))


@pytest.mark.slow
def test_a_run_that_read_through_fsspec_can_be_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeprof.measure.host.storage_probe.POINT_S", BRIEF_S)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with Session(tmp_path / "run", files=True) as session:
            assert sum(map(sum, session.loader(Fetched(url), batch_size=4, num_workers=1))) == 64 * 20_000
        files = load(tmp_path / "run").meta.reading.files
        assert [(each.how, each.size_bytes) for each in files] == [("url", 20_000)] * 4
        assert all(each.path.startswith(url) for each in files)
        assert probe_storage(tmp_path / "run").how == "url"
    finally:
        server.shutdown()
        server.server_close()
