"""Attach to a training of Lightning's: a script that knows nothing of pipeprof."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeprof.analyse.analysis import load
from pipeprof.measure.attach.attach import Wanted, attach
from tests.integrations import needs
from tests.measure.attach import jobs

pytestmark = [pytest.mark.heavy, needs("lightning"), pytest.mark.usefixtures("ptrace_right", "of_any_length")]

OBSERVED = 240
"""Steps that are observed, some 2.5 s: of 80 a single long one once made an interval of 0 to 100 %."""
STEPS = OBSERVED + 60

TRAINS = """
import hashlib, json, pathlib, time
import lightning, torch
from torch.utils.data import DataLoader, Dataset

class Samples(Dataset):
    def __len__(self): return 400
    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.randn(20) + index, index % 2

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.digest, self.digests = torch.nn.Linear(20, 2), hashlib.sha256(), []
    def training_step(self, batch, _):
        for tensor in batch: self.digest.update(tensor.numpy().tobytes())
        self.digests.append(self.digest.hexdigest()[:16])
        pathlib.Path("steps").write_text(str(len(self.digests)))
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def validation_step(self, batch, _):
        self.log("loss", torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)

class Stop(lightning.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = pathlib.Path("stop").exists()

if __name__ == "__main__":
    lightning.seed_everything(0)
    train = DataLoader(Samples(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    check = DataLoader(Samples(), batch_size=20, num_workers=1)
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, limit_val_batches=3)
    trainer = lightning.Trainer(max_epochs=1000, accelerator="cpu", callbacks=[Stop()], **quiet)
    model = Model()
    trainer.fit(model, train, check)
    from tests.measure.attach.jobs import remains
    pathlib.Path("result.json").write_text(json.dumps({"digests": model.digests, "left": remains()}))
"""


class Training:
    """A run of the script, in an interpreter of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "train.py").write_text(TRAINS)
        self.directory = directory
        root = str(Path(__file__).parents[3])
        command = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {root!r}); sys.argv = ['train.py']\n",
        ]
        command[-1] += "import runpy; runpy.run_path('train.py', run_name='__main__')"
        with (directory / "said").open("w") as said:
            self.process = subprocess.Popen(command, cwd=directory, stdout=said, stderr=said)

    def wait_for(self, steps: int, patience_s: float = 200.0) -> None:
        deadline = time.monotonic() + patience_s
        while self.steps < steps:
            assert time.monotonic() < deadline and self.process.poll() is None, self.said
            time.sleep(0.05)

    @property
    def steps(self) -> int:
        file = self.directory / "steps"
        return int(file.read_text() or 0) if file.exists() else 0

    @property
    def said(self) -> str:
        return (self.directory / "said").read_text()

    def end(self) -> dict[str, object]:
        (self.directory / "stop").touch()
        assert self.process.wait(300) == 0, self.said
        result: dict[str, object] = json.loads((self.directory / "result.json").read_text())
        return result

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.timeout(1200)
def test_a_training_of_lightnings_is_observed_and_notices_nothing(tmp_path: Path) -> None:
    alone, job = Training(tmp_path / "alone"), None
    try:
        alone.wait_for(STEPS)
        expected = alone.end()["digests"]
        job = Training(tmp_path / "job")
        job.wait_for(5)
        done = attach(job.process.pid, Wanted(tmp_path / "run", seconds=100.0, steps=OBSERVED))
        job.wait_for(STEPS)
        ended = job.end()
    finally:
        for each in filter(None, (alone, job)):
            each.kill()
    assert isinstance(expected, list) and isinstance(ended["digests"], list)
    assert ended["digests"][:STEPS] == expected[:STEPS]
    assert ended["left"] == jobs.CLEAN
    assert (done.steps >= OBSERVED, done.ended, done.unseen_workers) == (True, False, 0)
    found = load(done.directory)
    assert found.ledger is not None
    assert sum(found.ledger.ledger_ns.values()) == found.ledger.window.wall_ns
    batches = found.run.table("batches").to_pydict()
    by_size: dict[int | None, set[int]] = {each.batch_size: set() for each in found.run.meta.loaders}
    for loader, worker in zip(batches["loader"], batches["worker"], strict=True):
        by_size[found.run.meta.loader(loader).batch_size].add(worker)
    assert by_size == {8: {0, 1}, 20: {0}}, "the workers of the training loader and of the validation's"
    assert found.verdict.hot and found.verdict.hot[0].file == "train.py"
