"""Trains on rows of one Parquet file, drawn at random."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "parquet_row_group"
TABLE = HOME / "train.parquet"
ROWS, GROUP, WIDTH, STEP = 40_000, 4_000, 256, 0.02


def prepare():
    if TABLE.exists():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    part = TABLE.with_suffix(".part")
    schema = pa.schema([("label", pa.int32()), ("signal", pa.binary())])
    with pq.ParquetWriter(part, schema, compression="zstd") as out:
        for first in range(0, ROWS, GROUP):
            signals = [
                rng.integers(0, 400, WIDTH, dtype=np.int16).astype(np.float32).tobytes() for _ in range(GROUP)
            ]
            labels = np.arange(first, first + GROUP, dtype=np.int32) % 10
            out.write_table(
                pa.table({"label": labels, "signal": signals}, schema=schema), row_group_size=GROUP
            )
    part.rename(TABLE)


class Signals(Dataset):
    def __init__(self):
        self.file = None

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        if self.file is None:
            self.file = pq.ParquetFile(TABLE)
        group = self.file.read_row_group(i // GROUP)  # <- blame
        row = i % GROUP
        signal = np.frombuffer(group["signal"][row].as_py(), dtype=np.float32)
        return torch.from_numpy(signal.copy()), group["label"][row].as_py()


def main():
    prepare()
    loader = DataLoader(Signals(), batch_size=16, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 170 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
