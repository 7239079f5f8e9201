"""Trains many epochs on a small set of pictures; the data set keeps what it has decoded."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "cache_dies_with_workers"
PICTURES, SIZE, STEP = 128, (1200, 900), 0.015


def prepare():
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(9)
    for i in range(PICTURES):
        path = HOME / f"{i:04d}.jpg"
        if path.exists():
            continue
        rough = Image.fromarray(rng.integers(0, 255, (SIZE[1] // 15, SIZE[0] // 15, 3), dtype=np.uint8))
        part = path.with_suffix(".part")
        rough.resize(SIZE, Image.BICUBIC).save(part, format="JPEG", quality=88)
        part.rename(path)


class Pictures(Dataset):
    def __init__(self):
        self.kept = {}

    def __len__(self):
        return PICTURES

    def __getitem__(self, i):
        if i not in self.kept:
            with Image.open(HOME / f"{i:04d}.jpg") as picture:
                small = picture.convert("RGB").resize((160, 160), Image.BILINEAR)  # <- blame
            self.kept[i] = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return self.kept[i]


def main():
    prepare()
    loader = DataLoader(Pictures(), batch_size=16, shuffle=True, num_workers=2)
    for epoch in range(max(2, int(16 * SCALE))):
        for batch in loader:
            time.sleep(STEP)


if __name__ == "__main__":
    main()
