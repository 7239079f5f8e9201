"""Other people's data sets, each as its documentation iterates it: batches as they were, and observed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import pipeprof
from pipeprof.record.reader import Run, load
from tests.integrations import needs

pytestmark = pytest.mark.heavy
SAMPLES = 48


def run_of(loader: Any, out: Path, keys: str) -> tuple[Run, list[int]]:
    """The run of one pass, and the values under `keys` in the order in which they came."""
    with pipeprof.profile(loader, out=out) as observed:
        values = [int(value) for batch in observed for value in torch.as_tensor(batch[keys]).reshape(-1)]
    return load(out), values


def inside(run: Run) -> set[int]:
    """The workers whose batches were seen being made."""
    return set(run.table("batches")["worker"].to_pylist())


# -- Hugging Face datasets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("iterable", [False, True], ids=["map", "iterable"])
@needs("datasets")
def test_hugging_face_in_a_loader(iterable: bool, tmp_path: Path) -> None:
    import datasets

    data: Any = datasets.Dataset.from_dict({"x": list(range(SAMPLES))}).with_format("torch")
    if iterable:
        data = data.to_iterable_dataset(num_shards=2)
    run, values = run_of(DataLoader(data, batch_size=8, num_workers=2), tmp_path / "run", "x")
    assert sorted(values) == list(range(SAMPLES))
    assert inside(run) == {0, 1}
    assert sum(run.table("steps")["samples"].to_pylist()) == SAMPLES


@pytest.mark.parametrize("iterable", [False, True], ids=["map", "iterable"])
@needs("datasets")
def test_hugging_face_bare(iterable: bool, tmp_path: Path) -> None:
    import datasets

    data: Any = datasets.Dataset.from_dict({"x": list(range(SAMPLES))})
    data = data.to_iterable_dataset() if iterable else data
    run, values = run_of(data.iter(batch_size=8), tmp_path / "run", "x")
    assert values == list(range(SAMPLES))
    assert len(run.table("steps")) == 6
    with pipeprof.profile(data) as rows:
        assert [row["x"] for row in rows] == list(range(SAMPLES))
        assert rows.summary()["steps"] == SAMPLES


# -- WebDataset --------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> str:
    import webdataset

    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"shard-{shard}.tar")) as sink:
            for index in range(shard * SAMPLES // 2, (shard + 1) * SAMPLES // 2):
                sink.write({"__key__": f"{index:04d}", "x.cls": index})
    return str(tmp_path / "shard-{0..1}.tar")


def webdata(shards: str) -> Any:
    import webdataset

    data = webdataset.WebDataset(shards, shardshuffle=False).decode()
    return data.map(lambda sample: {"x": sample["x.cls"]})


@needs("webdataset")
def test_webdataset_alone(shards: str, tmp_path: Path) -> None:
    run, values = run_of(webdata(shards), tmp_path / "run", "x")
    assert values == list(range(SAMPLES))
    assert "the inside of WebDataset" in run.meta.not_observed
    assert len(run.table("steps")) == SAMPLES


@needs("webdataset")
def test_webdataset_in_a_webloader(shards: str, tmp_path: Path) -> None:
    import webdataset

    loader = webdataset.WebLoader(webdata(shards), batch_size=8, num_workers=2)
    run, values = run_of(loader, tmp_path / "run", "x")
    assert sorted(values) == list(range(SAMPLES))
    assert inside(run) == {0, 1}
    assert run.meta.not_observed == ()
    assert sum(run.table("steps")["samples"].to_pylist()) == SAMPLES


@needs("webdataset")
def test_webdataset_batched_again_in_the_loop(shards: str, tmp_path: Path) -> None:
    """Between loader and loop WebDataset mixes the workers' batches: work of the loop's own process."""
    import webdataset

    loader = webdataset.WebLoader(webdata(shards), batch_size=8, num_workers=2)
    run, values = run_of(loader.unbatched().shuffle(16).batched(6), tmp_path / "run", "x")
    assert sorted(values) == list(range(SAMPLES))
    beside = {row["stage"] for row in run.table("stages").to_pylist() if row["scope"] == 1}
    assert beside == {"stage:WebLoader"}


# -- Mosaic Streaming --------------------------------------------------------------------------------------


@needs("streaming")
def test_mosaic_streaming(tmp_path: Path) -> None:
    """It is in no dependency group, since it holds numpy and transformers back: see CONTRIBUTING.md."""
    import streaming

    with streaming.MDSWriter(out=str(tmp_path / "data"), columns={"x": "int"}) as writer:
        for index in range(SAMPLES):
            writer.write({"x": index})
    data = streaming.StreamingDataset(local=str(tmp_path / "data"), batch_size=8, shuffle=False)
    try:
        run, values = run_of(DataLoader(data, batch_size=8, num_workers=2), tmp_path / "run", "x")
    finally:
        streaming.base.util.clean_stale_shared_memory()
    assert sorted(values) == list(range(SAMPLES))
    assert inside(run) == {0, 1}


# -- Ray Data ----------------------------------------------------------------------------------------------


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:
        ray.shutdown()  # what has started would outlive the test
        if "timed out during startup" in str(error):
            pytest.skip("Ray gives itself 30 s to start, and this machine is too busy for that")
        raise
    yield ray
    ray.shutdown()


@needs("ray")
def test_ray_data(ray: Any, tmp_path: Path) -> None:
    batches = ray.data.range(SAMPLES).iter_torch_batches(batch_size=8)
    run, values = run_of(batches, tmp_path / "run", "id")
    assert sorted(values) == list(range(SAMPLES))
    assert len(run.table("steps")) == 6
    assert run.meta.loaders[0].workers is None
