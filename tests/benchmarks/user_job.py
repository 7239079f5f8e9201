"""A plain training job, which knows nothing of pipeprof: one data set, one loader, a step that sleeps.

    python user_job.py KIND --workers 2 --step-ms 10 --data DIR [--samples N]

KIND is one of `KINDS`; `remote` asks a web server at `--url`. The last line of its output is JSON: its own
samples a second after the first batches. `--prepare` makes the data and ends. Files are evicted from memory
before the loop, but those of kinds in RAM.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import time
from pathlib import Path
from typing import Any

KINDS = ("jpeg-ram", "text", "tensors", "jpeg-files", "raw-files", "mapped", "remote")
FIRST = 4
WIDTH = 4096


def first_counted(workers: int) -> int:
    """Return the batches before the clock starts: more with more workers, which make some ahead."""
    return FIRST + 2 * workers


def prepare(kind: str, data: Path, rows: int) -> None:
    """Make the files of a kind, once."""
    if kind in ("jpeg-files", "raw-files"):
        count = 2400 if kind == "jpeg-files" else 3200
        for number in range(count):
            path = data / kind / f"class{number % 8}" / f"{number}.{'jpg' if kind == 'jpeg-files' else 'raw'}"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(number) if kind == "jpeg-files" else os.urandom(64 * 1024))
    mapped = data / kind / "rows.u8"
    if kind == "mapped" and not (mapped.exists() and mapped.stat().st_size == rows * WIDTH):
        (data / kind).mkdir(parents=True, exist_ok=True)
        block = os.urandom(1 << 22)
        with (data / kind / "rows.u8").open("wb") as out:
            for _ in range(rows * WIDTH >> 22):
                out.write(block)
    os.sync()


def jpeg(number: int) -> bytes:
    """Return a picture of some 60 KB."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(number).integers(0, 256, (28, 28, 3), np.uint8)
    picture = Image.fromarray(noise).resize((384, 384), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).integers(0, 24, (384, 384, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray((np.asarray(picture) // 2 + grain).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def evict(data: Path) -> None:
    """Drop the files from memory."""
    for path in data.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def dataset(kind: str, data: Path, url: str) -> tuple[Any, Any]:
    """Return the data set of a kind, and its collate function."""
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Samples(Dataset[Any]):
        """Samples of one kind."""

        def __init__(self) -> None:
            self.files = sorted((data / kind).rglob("*.*")) if kind.endswith("-files") else []
            self.pictures = [jpeg(number) for number in range(64)] if kind == "jpeg-ram" else []
            self.rows = np.memmap(data / kind / "rows.u8", np.uint8, "r") if kind == "mapped" else None
            self.words = " ".join(f"word{number % 997}" for number in range(3000))

        def __len__(self) -> int:
            return len(self.files) or (len(self.rows) // WIDTH if self.rows is not None else 100_000)

        def __getitem__(self, index: int) -> Any:
            if kind == "jpeg-ram":
                return pixels(io.BytesIO(self.pictures[index % 64]))
            if kind == "text":
                return torch.tensor([hash(word) % 30_000 for word in self.words[index % 50 :].split()])
            if kind == "tensors":
                return torch.full((3, 160, 160), float(index))
            if kind == "mapped":
                assert self.rows is not None
                return torch.from_numpy(np.array(self.rows[index * WIDTH : (index + 1) * WIDTH]))
            if kind == "jpeg-files":
                with self.files[index].open("rb") as file:
                    return pixels(file)
            body = asked_of(index) if kind == "remote" else self.files[index].read_bytes()
            return torch.frombuffer(bytearray(body), dtype=torch.uint8)

    def asked_of(index: int) -> Any:
        import fsspec

        return fsspec.filesystem("http").cat_file(f"{url}/{index % 2000}")

    def pixels(file: Any) -> Any:
        from PIL import Image

        picture = Image.open(file).convert("RGB").resize((224, 224))
        return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)

    def padded(samples: list[Any]) -> Any:
        return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)

    return Samples(), padded if kind == "text" else None


def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step-ms", type=float, default=10.0)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=60, help="To count at least, where there is time.")
    parser.add_argument("--seconds", type=float, default=4.0, help="To count at the most.")
    parser.add_argument("--least-seconds", type=float, default=2.0, help="To count, however many batches.")
    parser.add_argument("--prefetch", type=int, help="Of each worker; torch's own where it is not said.")
    parser.add_argument("--rows", type=int, default=1 << 15, help=f"Rows of {WIDTH} bytes of `mapped`.")
    parser.add_argument("--url", default="", help="Where `remote` reads.")
    parser.add_argument("--emulate", help="An emulated device for the files, where none can be limited.")
    parser.add_argument("--prepare", action="store_true")
    asked = parser.parse_args()
    prepare(asked.kind, asked.data, asked.rows)
    if asked.prepare:
        return
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    random.seed(0)
    samples, collate = dataset(asked.kind, asked.data, asked.url)
    evict(asked.data / asked.kind)
    if asked.emulate:
        import pipeprof

        pipeprof.emulate(asked.data / asked.kind, asked.emulate)
    size = 4 if asked.kind == "mapped" else 16
    loader = DataLoader(
        samples,
        size,
        shuffle=True,
        num_workers=asked.workers,
        prefetch_factor=asked.prefetch if asked.workers else None,
        collate_fn=collate,
        drop_last=True,
    )
    first = first_counted(asked.workers)
    began = counted = 0
    start = ended = time.monotonic()
    for step, batch in enumerate(loader):
        time.sleep(asked.step_ms / 1e3)
        if step + 1 == first:
            began, start = step + 1, time.monotonic()
        counted, ended = step + 1, time.monotonic()  # leaving the loop waits for what the workers still read
        late, enough = ended - start > asked.seconds, ended - start > asked.least_seconds
        # batches of several workers come in rounds: only whole ones are counted
        whole = (step + 1 - first) % max(1, asked.workers) == 0
        if step + 1 > first and whole and (late or (enough and step + 1 >= first + asked.batches)):
            break
        del batch
    rate = (counted - began) * size / (ended - start)
    print(json.dumps({"samples_per_s": rate}))


if __name__ == "__main__":
    main()
