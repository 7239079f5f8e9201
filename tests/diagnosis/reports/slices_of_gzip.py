"""Trains in two dimensions on slices of CT volumes that are kept as .gz files."""

import gzip
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "slices_of_gzip"
VOLUMES, DEPTH, SIDE, STEP = 8, 120, 160, 0.04
SLICE = SIDE * SIDE * 2


def prepare():
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(18)
    for i in range(VOLUMES):
        path = HOME / f"ct{i:02d}.raw.gz"
        if path.exists():
            continue
        rough = rng.integers(-500, 500, (DEPTH // 8, SIDE // 8, SIDE // 8), dtype=np.int16)
        volume = rough.repeat(8, 0).repeat(8, 1).repeat(8, 2)
        volume = volume + rng.integers(-4, 4, volume.shape, dtype=np.int16)
        part = path.with_suffix(".part")
        with gzip.open(part, "wb", compresslevel=4) as out:
            out.write(volume.tobytes())
        part.rename(path)


class Slices(Dataset):
    def __len__(self):
        return VOLUMES * DEPTH

    def __getitem__(self, i):
        with gzip.open(HOME / f"ct{i // DEPTH:02d}.raw.gz") as volume:
            volume.seek(i % DEPTH * SLICE)  # <- blame
            raw = volume.read(SLICE)
        return torch.frombuffer(bytearray(raw), dtype=torch.int16).view(1, SIDE, SIDE)


def main():
    prepare()
    loader = DataLoader(Slices(), batch_size=8, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 110 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
