"""Trains on small feature records that are kept in one zip archive."""

import os
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "zip_reopened"
ARCHIVE = HOME / "records.zip"
RECORDS, WIDTH, STEP = 4000, 256, 0.02


def prepare():
    if ARCHIVE.exists():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    part = ARCHIVE.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as box:
        for i in range(RECORDS):
            box.writestr(f"scene/{i:06d}/points.f32", rng.standard_normal(WIDTH).astype(np.float32).tobytes())
    part.rename(ARCHIVE)


class Scenes(Dataset):
    def __init__(self):
        with zipfile.ZipFile(ARCHIVE) as box:
            self.names = sorted(box.namelist())

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        with zipfile.ZipFile(ARCHIVE) as box:  # <- blame
            raw = box.read(self.names[i])
        return torch.from_numpy(np.frombuffer(raw, dtype=np.float32).copy())


def main():
    prepare()
    loader = DataLoader(Scenes(), batch_size=16, shuffle=True, num_workers=2)
    left = int(90 * SCALE)
    while left > 0:
        for batch in loader:
            time.sleep(STEP)
            left -= 1
            if left <= 0:
                break


if __name__ == "__main__":
    main()
