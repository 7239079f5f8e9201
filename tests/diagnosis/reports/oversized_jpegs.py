"""Trains at 224 pixels on photographs as they came from the camera."""

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
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "oversized_jpegs"
PHOTOS, SIZE, STEP = 16, (3264, 2448), 0.05


def prepare():
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    for i in range(PHOTOS):
        path = HOME / f"IMG_{i:04d}.jpg"
        if path.exists():
            continue
        rough = Image.fromarray(rng.integers(0, 255, (SIZE[1] // 24, SIZE[0] // 24, 3), dtype=np.uint8))
        part = path.with_suffix(".part")
        rough.resize(SIZE, Image.BICUBIC).save(part, format="JPEG", quality=90)
        part.rename(path)


class Photos(Dataset):
    def __len__(self):
        return 2000

    def __getitem__(self, i):
        with Image.open(HOME / f"IMG_{i % PHOTOS:04d}.jpg") as photo:
            small = photo.convert("RGB").resize((224, 224), Image.BILINEAR)  # <- blame
        return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)


def main():
    prepare()
    loader = DataLoader(Photos(), batch_size=8, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 45 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
