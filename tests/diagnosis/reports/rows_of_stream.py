"""Trains a small network on a table that is streamed from Parquet, row by row."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "rows_of_stream"
TABLE = HOME / "clicks.parquet"
ROWS, GROUP, COLUMNS, STEP = 320_000, 20_000, 10, 0.0005


def prepare():
    if TABLE.exists():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(19)
    columns = {f"c{k}": rng.random(ROWS, dtype=np.float32) for k in range(COLUMNS)}
    part = TABLE.with_suffix(".part")
    pq.write_table(pa.table(columns), part, row_group_size=GROUP)
    part.rename(TABLE)


class Clicks(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        table = pq.ParquetFile(TABLE)
        for group in range(worker.id, table.num_row_groups, worker.num_workers):
            for row in table.read_row_group(group).to_pylist():  # <- blame
                yield torch.tensor([row[f"c{k}"] for k in range(COLUMNS)])  # <- blame


def main():
    prepare()
    loader = DataLoader(Clicks(), batch_size=512, num_workers=2, persistent_workers=True)
    left = int(2800 * SCALE)
    while left > 0:
        for batch in loader:
            time.sleep(STEP)
            left -= 1
            if left <= 0:
                break


if __name__ == "__main__":
    main()
