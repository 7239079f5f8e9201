"""Trains on short records of one large mapped file, read in random order from a cold disk."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "mmap_readahead"
STORE = HOME / "embeddings.u8"
ROWS, WIDTH, STEP = 131_072, 4096, 0.01


def prepare():
    HOME.mkdir(parents=True, exist_ok=True)
    if not STORE.exists():
        part = STORE.with_suffix(".part")
        with open(part, "wb") as out:
            block = os.urandom(8 << 20)
            for _ in range(ROWS * WIDTH // len(block)):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        part.rename(STORE)
    with open(STORE, "rb") as whole:  # begin cold
        os.posix_fadvise(whole.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Rows(Dataset):
    def __init__(self):
        self.rows = np.memmap(STORE, dtype=np.uint8, mode="r", shape=(ROWS, WIDTH))

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return torch.from_numpy(np.array(self.rows[i]))  # <- blame


def main():
    prepare()
    loader = DataLoader(Rows(), batch_size=16, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 120 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
