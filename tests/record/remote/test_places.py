"""Records that are sent to a URL and read from there, without a server: fsspec's file system in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from pipeprof.analyse.analysis import load as analysed
from pipeprof.analyse.job.merge import merge
from pipeprof.analyse.live.run import LiveRun
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.measure.session.job import local_out
from pipeprof.measure.session.session import Session
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import load
from pipeprof.record.remote import incoming
from pipeprof.record.remote.incoming import mirror, refresh
from pipeprof.record.remote.outgoing import SENT, Outgoing, address, destination, stage
from pipeprof.record.remote.places import is_url
from pipeprof.record.writer import TraceWriter
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.measure.session.loader_cases import Squares

URL = "memory://bucket/job"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def objects() -> list[str]:
    """What lies in the bucket."""
    return sorted(path.removeprefix("/bucket/job/") for path in fsspec.filesystem("memory").store)


def staged(plan: Plan | None = None) -> Path:
    root = stage(URL)
    made = make_run(root.parent / "made", plan or Plan(batches=40))
    shutil.copytree(made, root, dirs_exist_ok=True)
    shutil.rmtree(made)
    return root


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://b/x", True),
        ("gs://b", True),
        ("runs/x", False),
        ("/a://b", False),
        ("s3:/b", False),
        ("s3://", False),
    ],
)
def test_what_is_a_url(text: str, url: bool) -> None:
    assert is_url(text) is url
    assert not is_url(Path("runs"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nowhere://x/y", "fsspec knows no nowhere"),
        ("oci://x/y", "is installed"),
        ("ftp://somebody:hunter2hunter2@host/x", "contains a credential"),
    ],
)
def test_a_url_that_nothing_can_be_sent_to_is_one_clear_error(url: str, said: str) -> None:
    with pytest.raises(TraceError, match=said) as error:
        stage(url)
    assert "hunter2" not in str(error.value)
    done = CliRunner().invoke(cli, ["trace", "--out", url, "train.py"])
    assert isinstance(done.exception, TraceError)


class Bucket(MemoryFileSystem):
    """A store of another scheme, whose paths have no slash before the bucket's name, as gcsfs and adlfs have
    them. It shows how we handle the URLs, and nothing of these packages."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    protocol = ("gs", "gcs", "az", "abfs")

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        scheme, between, rest = str(path).partition("://")
        place = rest if between else scheme
        account, at, below = place.partition("@")
        if at:  # abfs://container@account.dfs.core.windows.net/path
            place = f"{account}/{below.partition('/')[2]}"
        return super()._strip_protocol(place)


@pytest.fixture
def bucket() -> Iterator[type[Bucket]]:
    """The store under each of its schemes."""
    known = dict(_registry)
    for scheme in Bucket.protocol:
        fsspec.register_implementation(scheme, Bucket, clobber=True)
    yield Bucket
    _registry.clear()
    _registry.update(known)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    Bucket.clear_instance_cache()


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/jobs/42",
        "gcs://bucket/jobs/42/",
        "az://container/jobs/42",
        "abfs://container@account.dfs.core.windows.net/jobs/42",
    ],
)
def test_a_job_at_another_store_is_merged_from_there(url: str, bucket: type[Bucket], tmp_path: Path) -> None:
    root = stage(url)
    job = make_job(tmp_path / "job", Job(ranks=4, steps=40))
    shutil.copytree(job, root, dirs_exist_ok=True)
    outgoing = Outgoing(root, url)
    outgoing.send_tree()
    assert outgoing.left(root) == []
    first = next(iter(bucket.store))
    assert first.startswith(("/bucket/jobs/42/", "/container/jobs/42/"))
    assert address(root / "rank-3") == f"{url.rstrip('/')}/rank-3"
    outgoing.remove(root)
    found = merge([mirror(url)])
    assert (len(found.ranks), found.status) == (4, "complete")
    assert found.verdict.as_dict() == merge([job]).verdict.as_dict()


@pytest.mark.parametrize(
    ("url", "package"),
    [("gs://bucket/x", "gcsfs"), ("az://container/x", "adlfs"), ("abfs://container@account/x", "adlfs")],
)
@pytest.mark.skipif(find_spec("gcsfs") or find_spec("adlfs"), reason="the package is installed")
def test_a_missing_package_is_one_error_that_names_it(url: str, package: str) -> None:
    for asked in (stage, mirror):
        with pytest.raises(TraceError, match="no package for") as error:
            asked(url)
        assert error.value.remedy == f"pip install {package}"


def test_a_run_that_was_sent_is_read_from_there(tmp_path: Path) -> None:
    root = staged()
    before = analysed(root).verdict.as_dict()
    outgoing = Outgoing(root, URL)
    outgoing.send_tree()
    assert outgoing.left(root) == []
    outgoing.remove(root)
    assert not root.exists()
    assert not [name for name in objects() if name.startswith(".")]
    assert analysed(mirror(URL)).verdict.as_dict() == before


def test_a_stream_is_sent_in_pieces_and_its_end_takes_their_place() -> None:
    root = stage(URL)
    writer = TraceWriter(root, RunMeta(pid=2**22 + 1))
    outgoing = Outgoing(root, URL)
    for number in range(3):
        writer.append("events", {"time_ns": [number], "kind": ["x"]})
        writer.flush()
        outgoing.send(root)
        outgoing.send(root)
    pieces = [name for name in objects() if name.startswith("events.arrows.")]
    assert len(pieces) == 3
    directory = mirror(URL)
    assert load(directory).table("events")["time_ns"].to_pylist() == [0, 1, 2]
    writer.append("events", {"time_ns": [3], "kind": ["x"]})
    writer.flush()
    outgoing.send(root)
    refresh(directory)
    assert load(directory).table("events")["time_ns"].to_pylist() == [0, 1, 2, 3]
    writer.close("complete")
    outgoing.send(root)
    assert objects() == ["events.parquet", "run.json"]
    refresh(directory)
    assert load(directory).status == "complete"
    assert load(directory).table("events")["time_ns"].to_pylist() == [0, 1, 2, 3]


def test_a_run_is_followed_from_there_while_it_is_written() -> None:
    root = stage(URL)
    writer, outgoing = TraceWriter(root, RunMeta()), Outgoing(root, URL)

    def go_on(first: int, count: int) -> None:
        at = np.arange(first, first + count, dtype=np.int64) * 10 * MS + MS
        steps = {"loader": [0] * count, "epoch": [0] * count, "seq": at // (10 * MS), "step": at // (10 * MS)}
        times = {"request_ns": at, "take_ns": at + MS, "samples": [4] * count}
        writer.append("steps", steps | times)
        writer.flush()
        outgoing.send(root)

    go_on(0, 5)
    live = LiveRun(mirror(URL))
    assert live.poll()
    assert live.all.steps == 5
    go_on(5, 3)
    assert live.poll()
    assert (live.all.steps, live.all.samples) == (8, 32)
    writer.close("complete")
    outgoing.send(root)
    assert not live.poll()


def test_a_session_in_one_process_sends_to_memory_at_its_end() -> None:
    with Session(URL) as session:
        for _ in session.loader(Squares(), batch_size=4):
            pass
    session.wait_until_sent()
    assert not session.directory.exists()
    run = load(mirror(URL))
    assert (run.status, run.table("steps").num_rows) == ("complete", 10)


def test_a_stream_is_read_up_to_a_piece_that_is_missing() -> None:
    root = stage(URL)
    writer = TraceWriter(root, RunMeta())
    outgoing = Outgoing(root, URL)
    for number in range(3):
        writer.append("events", {"time_ns": [number], "kind": ["x"]})
        writer.flush()
        outgoing.send(root)
    middle = [name for name in objects() if name.startswith("events.arrows.")][1]
    fsspec.filesystem("memory").rm(f"/bucket/job/{middle}")
    assert load(mirror(URL)).table("events")["time_ns"].to_pylist() == [0]
    writer.close("complete")


def test_sending_goes_on_where_it_was_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    root = staged()
    outgoing, sent = Outgoing(root, URL), []
    original = outgoing._fs.pipe_file

    def cut(path: str, value: bytes, **keywords: object) -> None:
        if len(sent) == 3:
            raise ConnectionResetError("cut")
        sent.append(path)
        original(path, value, **keywords)

    monkeypatch.setattr(outgoing._fs, "pipe_file", cut)
    with pytest.raises(ConnectionResetError):
        outgoing.send(root)
    assert "run.json" in objects(), "a run is seen from its first moment"
    monkeypatch.setattr(outgoing._fs, "pipe_file", lambda *a, **k: (sent.append(a[0]), original(*a, **k))[1])
    Outgoing(root, URL).send(root)
    assert len(sent) == len(set(sent)) == len(objects())


def test_another_run_there_is_not_written_over() -> None:
    Outgoing(root := staged(), URL).send_tree()
    held = dict(fsspec.filesystem("memory").store)
    meta = json.loads((root / "run.json").read_text())
    (root / "run.json").write_text(json.dumps({**meta, "created_at": "2026-01-01T00:00:00+00:00", "pid": 7}))
    (root / SENT).unlink()
    with pytest.raises(TraceError, match="already holds another run"):
        Outgoing(root, URL).send(root)
    assert fsspec.filesystem("memory").store.keys() == held.keys()


def test_the_runs_of_processes_that_were_moved_are_moved_there_too() -> None:
    root = stage(URL)
    make_run(root / "process-1", Plan(batches=20))
    outgoing = Outgoing(root, URL)
    outgoing.send(root / "process-1")
    for path in (root / "process-1").iterdir():
        path.rename(root / path.name)
    (root / "process-1").rmdir()
    Outgoing(root, URL).send_tree()
    assert "run.json" in objects()
    assert not [name for name in objects() if "process-1" in name]


def test_the_ranks_of_a_job_are_merged_from_there(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(read={2: 30 * MS}))
    expected = merge([job]).as_dict()
    for rank in range(4):  # each from a machine of its own
        root = stage(URL)
        shutil.copytree(job / f"rank-{rank}", root / f"rank-{rank}")
        outgoing = Outgoing(root, URL)
        outgoing.send(root / f"rank-{rank}")
        outgoing.remove(root / f"rank-{rank}")
        assert not root.exists()
    found = merge([mirror(URL)]).as_dict()
    assert found["verdict"] == expected["verdict"]
    assert [row["ledger_ns"] for row in found["ranks"]] == [row["ledger_ns"] for row in expected["ranks"]]


def test_verbs_take_a_url(tmp_path: Path) -> None:
    Outgoing(staged(Plan(batches=200)), URL).send_tree()
    for words in (
        ["report", URL, "--json"],
        ["check", URL, "--max-stall", "100%"],
        ["compare", URL, URL, "--json"],
        ["list", URL, "--json"],
        ["history", URL, "--json"],
        ["export", URL, "--to", "csv", "--out", str(tmp_path / "csv")],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
    done = CliRunner().invoke(cli, ["report", "memory://bucket/none", "--json"])
    assert isinstance(done.exception, TraceError)
    assert "there is no run at memory://bucket/none" in str(done.exception)
    done = CliRunner().invoke(cli, ["live", URL])
    assert isinstance(done.exception, TraceError)
    assert "has ended" in str(done.exception)
    done = CliRunner().invoke(cli, ["export", URL, "--to", "csv", "--out", URL])
    assert done.exit_code == 2


def test_of_a_large_table_only_the_columns_asked_for_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    root = staged(Plan(batches=10_000, spans_every=0, jitter=0.3))
    whole = (root / "stages.parquet").stat().st_size
    expected = next(load(root).pieces("stages", ["count"]))
    Outgoing(root, URL).send_tree()
    monkeypatch.setattr(incoming, "WHOLE_BYTES", 0)
    monkeypatch.setattr(incoming, "BLOCK_BYTES", 1024)
    directory = mirror(URL)
    read = []
    original = fsspec.implementations.memory.MemoryFile.read
    monkeypatch.setattr(
        fsspec.implementations.memory.MemoryFile,
        "read",
        lambda self, *a: (read.append(len(data := original(self, *a))), data)[1],
    )
    assert next(load(directory).pieces("stages", ["count"])).equals(expected)
    assert 0 < sum(read) < 0.6 * whole
    assert not (directory / "stages.parquet").exists()


def test_what_is_gone_at_the_url_is_gone_here_and_what_changed_is_fetched_again(tmp_path: Path) -> None:
    root = stage(URL)
    for name in ("a", "b"):
        make_run(root / name, Plan(batches=20))
    Outgoing(root, URL).send_tree()
    directory = mirror(URL)
    assert load(directory / "a").table("steps").num_rows == 20
    shutil.rmtree(root / "a")
    make_run(root / "a", Plan(batches=30))
    fsspec.filesystem("memory").rm("/bucket/job/b", recursive=True)
    fsspec.filesystem("memory").rm("/bucket/job/a", recursive=True)
    Outgoing(root, URL).send(root / "a")
    mirror(URL)
    assert load(directory / "a").table("steps").num_rows == 30
    assert not (directory / "b").exists()


def test_upload_sends_what_stayed(tmp_path: Path) -> None:
    root = staged()
    done = CliRunner().invoke(cli, ["upload", str(root)])
    assert (done.exit_code, done.output.strip()) == (0, f"1 run sent to {URL}")
    assert not root.exists()
    done = CliRunner().invoke(cli, ["upload", str(tmp_path)])
    assert isinstance(done.exception, TraceError)


def test_addresses() -> None:
    root = local_out(URL)
    assert root is not None
    assert destination(root) == (root, URL)
    assert address(root / "rank-0") == f"{URL}/rank-0"
    assert address(Path("runs/x")) == "runs/x"
    assert local_out("runs/x") == Path("runs/x")
    assert local_out(None) is None
