"""Trains a robot's policy: the cameras of one moment, and the actions of the moments that follow."""

import io
import os
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "chunk_decodes_cameras"
MOMENTS, CHUNK, SIZE, STEP = 600, 40, (320, 180), 0.02


def prepare():
    if HOME.exists():
        return
    rng = np.random.default_rng(24)
    rows = {"wrist": [], "front": [], "action": rng.random((MOMENTS, 7), dtype=np.float32).tolist()}
    for name in ["wrist", "front"] * MOMENTS:
        rough = Image.fromarray(rng.integers(0, 255, (SIZE[1] // 12, SIZE[0] // 12, 3), dtype=np.uint8))
        rough.resize(SIZE, Image.BICUBIC).save(held := io.BytesIO(), format="JPEG", quality=90)
        rows[name].append({"bytes": held.getvalue(), "path": None})
    camera, floats = datasets.Image(), datasets.List(datasets.Value("float32"))
    kinds = datasets.Features(wrist=camera, front=camera, action=floats)
    part = HOME.with_suffix(".part")
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(part)
    part.rename(HOME)


class Moments(Dataset):
    def __init__(self):
        self.rows = datasets.load_from_disk(HOME)

    def __len__(self):
        return MOMENTS - CHUNK

    def __getitem__(self, i):
        now = self.rows[i]
        cameras = torch.stack([torch.from_numpy(np.array(now[name])) for name in ("wrist", "front")])
        actions = self.rows[i : i + CHUNK]["action"]  # <- blame
        return cameras, torch.tensor(actions)


def main():
    prepare()
    loader = DataLoader(Moments(), batch_size=8, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 45 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
