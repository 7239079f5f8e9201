"""Records sent to a real S3 server on loopback: slow, refusing, cut off, and killed in mid-upload."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.analyse.job.merge import merge
from pipeprof.cli import cli
from pipeprof.measure.session.session import Session
from pipeprof.measure.session.upload.uploader import EVERY_S, PATIENCE_S, Uploader
from pipeprof.record.reader import load
from pipeprof.record.remote.incoming import mirror
from pipeprof.record.remote.outgoing import stage
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Plan, make_run
from tests.forked import Program
from tests.measure.session.loader_cases import Squares
from tests.measure.storage.s3_server import Place, s3_server
from tests.timing import Timing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("moto") is None or find_spec("s3fs") is None, reason="moto and s3fs are not installed"
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Place]:
    with s3_server() as place:
        yield place


@pytest.fixture
def bucket(server: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        EVERY_S: "0.3",
        PATIENCE_S: "20",
    }.items():
        monkeypatch.setenv(name, value)
    server.behave()
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{tmp_path.name.lower().replace('_', '-')}"[:60].rstrip("-")
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/runs"


def tables_of(directory: Path) -> dict[str, int]:
    run = load(directory)
    return {name: run.table(name).num_rows for name in ("steps", "batches", "stages", "spans", "events")}


def staged(url: str, batches: int = 60) -> Path:
    root = stage(url)
    made = make_run(root.parent / "made", Plan(batches=batches))
    shutil.copytree(made, root, dirs_exist_ok=True)
    return root


def until(true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "how",
    [
        {"latency_s": 0.02, "refused": 0.3, "dropped": 0.3},
        pytest.param({"latency_s": 0.5}, marks=pytest.mark.heavy),
        pytest.param({"refused": 0.6}, marks=pytest.mark.heavy),
        pytest.param({"dropped": 0.6}, marks=pytest.mark.heavy),
    ],
    ids=["all", "slow", "503", "cut"],
)
def test_a_record_arrives_whole_however_the_server_behaves(
    how: dict[str, float], bucket: str, server: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    server.behave(writes=1.0, **how)
    root = staged(bucket)
    expected = tables_of(root)
    uploader = Uploader(root, bucket, root, removes="own")
    uploader.end()
    assert capfd.readouterr().err == ""
    assert not root.exists()
    seen = server.seen()
    assert seen["requests"] > 5
    assert seen["refused"] > 0 or "refused" not in how
    assert seen["dropped"] > 0 or "dropped" not in how
    server.behave()
    assert tables_of(mirror(bucket)) == expected


def test_what_cannot_be_sent_stays_and_is_told(
    bucket: str, server: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PATIENCE_S, "0.5")
    nowhere = f"{bucket.rpartition('/')[0]}-none/runs"
    root = staged(nowhere)
    expected = tables_of(root)
    Uploader(root, nowhere, root, removes="own").end()
    said = capfd.readouterr().err
    assert "were not sent" in said
    assert f"pipeprof upload {root}" in said
    assert tables_of(root) == expected


def test_a_sender_that_was_killed_in_mid_upload_is_gone_on_with(
    bucket: str, server: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    server.behave(writes=1.0, latency_s=0.4)
    root = staged(bucket)
    expected = tables_of(root)
    uploader = Uploader(root, bucket, root, removes="own")
    until(lambda: server.seen()["requests"] >= 2)
    uploader._process.send_signal(signal.SIGKILL)
    uploader.end()
    assert "the sending process was ended" in capfd.readouterr().err
    assert tables_of(root) == expected, "nothing is removed that was not sent"
    server.behave()
    done = CliRunner().invoke(cli, ["upload", str(root)])
    assert done.exit_code == 0, done.output
    assert tables_of(mirror(bucket)) == expected


@pytest.mark.heavy
def test_four_ranks_give_one_verdict_from_the_bucket(bucket: str, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(read={2: 30 * MS}))
    expected = merge([job]).verdict
    root = stage(bucket)
    senders = []
    for rank in range(4):
        shutil.copytree(job / f"rank-{rank}", root / f"rank-{rank}")
        senders.append(Uploader(root, bucket, root / f"rank-{rank}", removes="own"))
    for sender in senders:
        sender.end()
    done = CliRunner().invoke(cli, ["merge", bucket, "--json"])
    assert done.exit_code == 0, done.output
    verdict = json.loads(done.output)["verdict"]
    assert (verdict["rank"], verdict["cause"]) == (expected.rank, expected.cause) == (2, "storage-latency")


def _ranks(names: tuple[str, ...]) -> list[dict[str, str]]:
    """The variables of four ranks: `names` of rank, size, local rank and local size."""
    return [
        {name: value for name, value in zip(names, (str(rank), "4", str(rank), "4"), strict=False) if name}
        for rank in range(4)
    ]


LAUNCHED = {
    "torchrun": _ranks(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")),
    "srun": _ranks(("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")),
    "Open MPI": _ranks(
        (
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        )
    ),
    "PMI": _ranks(("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")),
    "Lightning": [{**one, "NODE_RANK": "0"} for one in _ranks(("", "WORLD_SIZE", "LOCAL_RANK"))],
    "Kubernetes": _ranks(("JOB_COMPLETION_INDEX", "WORLD_SIZE")),
    "Kubernetes, no size": _ranks(("JOB_COMPLETION_INDEX",)),
}


@pytest.mark.heavy
@pytest.mark.parametrize("launcher", LAUNCHED)
def test_four_real_ranks_of_each_launcher_give_one_verdict_from_the_bucket(
    launcher: str, bucket: str, tmp_path: Path
) -> None:
    def train(rank: int) -> Callable[[], None]:
        def main() -> None:
            os.environ.update(LAUNCHED[launcher][rank])
            with Session(bucket) as session:
                for _ in session.loader(Slow(0.02 if rank == 2 else 0.001), batch_size=2):
                    time.sleep(0.005)

        return main

    programs = [Program(train(rank), tmp_path) for rank in range(4)]
    for program in programs:
        assert program.finished().returncode == 0
    until(lambda: not list((tmp_path / "cache" / "pipeprof" / "outgoing").iterdir()))
    found = merge([mirror(bucket)])
    assert [row.rank for row in found.ranks] == [0, 1, 2, 3]
    assert (found.world_size, found.status) == (4, "complete")
    assert found.verdict.cause != "inconclusive"
    assert all(sum(row.ledger_ns.values()) == row.wall_ns for row in found.ranks)


class Slow(Squares):
    """Samples that take their time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 120

    def __getitem__(self, number: int) -> object:
        time.sleep(self.seconds)
        return number


def test_a_program_that_is_killed_loses_at_most_its_last_second(
    bucket: str, server: Place, tmp_path: Path, timing: Timing
) -> None:
    server.behave(writes=1.0, latency_s=0.05)
    taken = tmp_path / "taken"

    def train() -> None:
        with Session(bucket) as session, taken.open("w") as file:
            loader = session.loader(Squares(), batch_size=1)
            while True:
                for _ in loader:
                    file.write(f"{time.monotonic()}\n")
                    file.flush()
                    time.sleep(0.005)

    program = Program(train, tmp_path)
    root = stage(bucket)
    until(lambda: taken.exists() and taken.read_text().count("\n") > 300)
    killed_s = time.monotonic()
    os.kill(program.pid, signal.SIGKILL)
    program.process.join()
    times = [float(line) for line in taken.read_text().split()]
    until(lambda: not root.exists())
    program.finished()
    run = load(mirror(bucket))
    assert run.status == "partial"
    kept = run.table("steps").num_rows
    assert kept > 0
    with timing.compared():  # with the time at which the flush thread had a core
        assert kept >= sum(at < killed_s - 1.0 for at in times)


SCRIPT = """
from torch.utils.data import DataLoader
import time
for batch in DataLoader(list(range(400)), batch_size=4, num_workers=1):
    time.sleep(0.004)
print("done")
"""


@pytest.mark.heavy
def test_a_script_is_traced_into_the_bucket_and_leaves_nothing_here(bucket: str, tmp_path: Path) -> None:
    import sys

    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "pipeprof", "trace", "--out", f"{bucket}/one", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert f"{bucket}/one/report.html" in done.stderr.replace("\n", "")
    assert not list((tmp_path / "cache" / "pipeprof" / "outgoing").iterdir())
    directory = mirror(f"{bucket}/one")
    run = load(directory)
    assert (run.status, run.table("steps").num_rows) == ("complete", 100)
    shown = CliRunner().invoke(cli, ["report", f"{bucket}/one", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.output)["steps"] == 100
