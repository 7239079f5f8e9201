"""Ray Train's TorchTrainer on a local Ray: its workers write parts of one job below Ray's storage path."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.errors import MeasureError
from pipeprof.integrations.ray import observed
from pipeprof.record.reader import load

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    import ray

    try:
        ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:
        ray.shutdown()  # what has started would outlive the test
        if "timed out during startup" in str(error):
            pytest.skip("Ray gives itself 30 s to start, and this machine is too busy for that")
        raise
    yield ray
    ray.shutdown()


def train(config: dict[str, Any]) -> None:
    """Each worker reads its own loader and its shard of the data set; rank 1 is slow."""
    import time

    import ray.train
    from torch.utils.data import DataLoader

    rank = ray.train.get_context().get_world_rank()

    class Slow:
        def __len__(self) -> int:
            return 120

        def __getitem__(self, number: int) -> int:
            time.sleep(0.02 if rank == 1 else 0.001)
            return number

    for _ in DataLoader(Slow(), batch_size=4):
        time.sleep(0.002)
    if config["shards"]:
        for _ in ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=8):
            time.sleep(0.001)


@pytest.mark.parametrize("workers", [2, 4])
def test_the_workers_of_a_trainer_are_one_job(workers: int, ray: Any, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        observed(train),
        train_loop_config={"shards": workers == 2},
        datasets={"train": ray.data.range(64)},
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name="mine", storage_path=str(tmp_path)),
    )
    trainer.fit()
    job = tmp_path / "mine" / "pipeprof"
    found = merge([job])
    assert [row.rank for row in found.ranks] == list(range(workers))
    assert (found.world_size, found.status) == (workers, "complete")
    for row in found.ranks:
        assert sum(row.ledger_ns.values()) == row.wall_ns
    steps = 30 + (64 // workers // 8 if workers == 2 else 0)
    run = load(job / "rank-0")
    assert run.table("steps").num_rows == steps
    if workers == 2:
        assert run.meta.loaders[-1].kind == "iterable"
        assert "the inside of Ray Data" in run.meta.not_observed
        assert run.meta.loaders[-1].operators[0].rows == 64, "of the tasks for both"


def test_the_slowest_operator_is_named(ray: Any, tmp_path: Path) -> None:
    import time

    import pipeprof

    def slow(batch: Any) -> Any:
        time.sleep(0.3)
        return batch

    data = ray.data.range(400, override_num_blocks=8).map_batches(lambda batch: batch, batch_size=10)
    data = data.map_batches(slow, batch_size=25, num_cpus=0.5)  # which keeps it apart from the others
    with pipeprof.profile(data.iter_torch_batches(batch_size=10), out=tmp_path / "run") as batches:
        for _ in range(2):
            assert sum(len(batch["id"]) for batch in batches) == 400
        for _ in batches:  # a pass that is broken off counts as far as it came
            break
    (loader,) = load(tmp_path / "run").meta.loaders
    *others, last = loader.operators
    assert (loader.name, last.name) == ("Ray Data", "MapBatches(slow)")
    assert last.rows is not None and last.rows >= 800
    assert last.wall_ns is not None and last.wall_ns > sum(each.wall_ns or 0 for each in others)
    found = pipeprof.load(tmp_path / "run").verdict
    assert (found.cause, found.detail) == ("inconclusive", "inside-not-observed")
    assert "went into MapBatches(slow)" in found.sentence


def test_outside_of_ray_it_is_one_clear_error() -> None:
    with pytest.raises(MeasureError, match="not a worker of Ray Train"):
        observed(train)({})
