"""Runs over a real S3 server on loopback: three planted reasons for slow reads, each told from the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from torch.utils.data import Dataset

import pipeprof
from pipeprof import ProfiledDataLoader
from pipeprof.errors import MeasureError
from pipeprof.measure.bench.bench import Bench
from pipeprof.measure.bench.run import run
from pipeprof.scenario import Scenario
from pipeprof.simulate.forecast import Forecast
from tests.measure.storage.s3_server import Place, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("of_any_length")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as place:
        patch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("PIPEPROF_CACHE", str(tmp_path_factory.mktemp("cache")))
        s3fs = pytest.importorskip("s3fs")
        s3fs.S3FileSystem(endpoint_url=place.url).mkdir("bucket")
        yield place


def scenario(server: Place, sample_bytes: int = 20_000, **more: Any) -> Scenario:
    parts: dict[str, Any] = {
        "name": "s3",
        "data": {"format": "tensor_files", "samples": 32, "sample_bytes": sample_bytes},
        "storage": {
            "tier": "network",
            "path": "s3://bucket/train",
            "options": {"endpoint_url": server.url},
        },
        "loader": {"batch_size": 1, "workers": 2, "persistent_workers": True},
        "accelerator": {"kind": "emulated", "step_ms": 2},
        "run": {"steps": 36, "warmup_steps": 8},
    }
    for key, changed in more.items():
        parts[key] = {**parts[key], **changed}
    return Scenario(**parts)


def measured(server: Place, out: Path, scenario: Scenario, **how: float) -> Any:
    """The answer of a run while the server behaves so. The set is put there before."""
    with Bench(scenario):
        server.behave(**how)
    try:
        return pipeprof.load(run(scenario, out))
    finally:
        server.behave()


def told(answer: Any) -> tuple[str, str | None]:
    assert answer.verdict.doubts == () or not answer.verdict.doubts[0].decisive, answer.verdict.doubts
    assert sum(answer.ledger.ledger_ns.values()) == answer.ledger.window.wall_ns
    return answer.verdict.cause, answer.verdict.detail


def test_latency_few_bytes_a_request_and_the_first_one_takes_longest(server: Place, tmp_path: Path) -> None:
    answer = measured(server, tmp_path / "run", scenario(server), latency_s=0.06)
    assert told(answer) == ("storage-network", "latency")
    assert answer.verdict.fix in ("more-workers", "shards", "ram")  # whichever is predicted to gain most
    figures = dict(answer.verdict.evidence)
    assert figures["first_byte_ns"] >= 60e6
    assert 1 < figures["reads_in_flight"] <= 2.1
    assert figures["bytes_per_request"] == pytest.approx(answer.run.meta.data.mean_bytes, rel=0.05)
    assert "waits" in answer.verdict.sentence
    assert figures["refused_share"] == 0
    # remote data have no page cache: the scenario's default `cold` is nothing to check
    assert answer.run.meta.storage.cache is None
    assert answer.facts.device_bytes is None


def test_bandwidth_the_line_is_full(server: Place, tmp_path: Path) -> None:
    limit = 10e6
    answer = measured(server, tmp_path / "run", scenario(server, 600_000), bytes_per_s=limit)
    assert told(answer) == ("storage-network", "bandwidth")
    assert answer.verdict.fix in ("ram", "faster-storage")
    figures = dict(answer.verdict.evidence)
    assert 0.5 * limit < figures["read_bytes_per_s"] < 1.1 * limit
    assert "more-workers" not in {ranked.fix.word for ranked in Forecast(answer).fixes}


@pytest.mark.heavy
def test_throttled_refused_and_asked_again(server: Place, tmp_path: Path) -> None:
    answer = measured(
        server, tmp_path / "run", scenario(server, run={"steps": 30, "warmup_steps": 4}), refused=0.25
    )
    assert told(answer) == ("storage-network", "throttled")
    assert answer.verdict.fix in ("shards", "ram")
    figures = dict(answer.verdict.evidence)
    assert figures["throttled_time_share"] > 0.5
    assert 0 < figures["refused_share"] < 0.5
    assert "503" in answer.verdict.sentence


def test_each_process_makes_its_own_client_whatever_starts_it(server: Place, tmp_path: Path) -> None:
    """Spawned workers load the client anew: their requests are seen as forked workers' are."""
    loader = {"start_method": "spawn", "workers": 1}
    spawned = scenario(server, loader=loader, run={"steps": 28, "warmup_steps": 4})
    answer = measured(server, tmp_path / "run", spawned, latency_s=0.06)
    assert told(answer) == ("storage-network", "latency")


def test_the_loop_itself_may_read(server: Place, tmp_path: Path) -> None:
    alone = scenario(server, loader={"workers": 0, "persistent_workers": False})
    answer = measured(server, tmp_path / "run", alone, latency_s=0.03)
    assert told(answer) == ("storage-network", "latency")
    _, answers = answer.facts.requests["first-byte"]
    assert answers == answer.facts.reads == answer.facts.samples


class Own(Dataset[int]):
    """A data set of the user's own, which reads with fsspec as its manual says."""

    def __init__(self, url: str, endpoint: str) -> None:
        self.url, self.endpoint = url, endpoint

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> int:
        with fsspec.open(self.url, "rb", endpoint_url=self.endpoint) as file:
            return len(file.read())


def test_a_data_set_that_reads_with_fsspec_itself_is_seen_too(server: Place, tmp_path: Path) -> None:
    import s3fs

    client = s3fs.S3FileSystem(endpoint_url=server.url)
    client.pipe_file("bucket/own/file", b"x" * 5000)
    server.behave(latency_s=0.03)
    loader = ProfiledDataLoader(
        Own("s3://bucket/own/file", server.url), batch_size=1, num_workers=2, out=tmp_path / "run"
    )
    assert [int(batch) for batch in loader] == [5000] * 32
    loader.session.close()
    server.behave()
    facts = pipeprof.load(tmp_path / "run").facts
    wall, answers = facts.requests["first-byte"]
    assert answers == facts.reads == 64  # size, then content: as fsspec opens a file
    assert facts.read_bytes == 5000 * facts.samples
    assert wall >= 32 * 30e6  # the delay of the 32 answers that brought bytes
    assert facts.device_bytes is None


def test_a_bucket_that_is_not_there(server: Place) -> None:
    nowhere = {"path": "s3://nowhere/train"}
    with pytest.raises(MeasureError, match=r"storage.path: s3://nowhere/train: there is no such bucket"):
        Bench(scenario(server, storage=nowhere))


def test_an_endpoint_that_is_not_there(server: Place) -> None:
    """Nobody listens at port 9. The client is told not to try for long."""
    once = {"retries": {"max_attempts": 0}, "connect_timeout": 1}
    options = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": once}
    with pytest.raises(MeasureError, match="the endpoint cannot be reached"):
        Bench(scenario(server, storage={"options": options}))


def test_credentials_that_are_not_there(
    server: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    options = {"endpoint_url": server.url, "default_block_size": 2**20}  # another client than before
    with pytest.raises(MeasureError, match="there are no credentials\nset AWS_ACCESS_KEY_ID"):
        Bench(scenario(server, storage={"options": options}))
