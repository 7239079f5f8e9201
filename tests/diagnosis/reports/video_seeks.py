"""Trains on single frames of short videos, drawn at random; a video has one key frame, its first."""

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
HOME = Path(os.environ.get("CASES_DIR", tempfile.gettempdir())) / "video_seeks"
VIDEOS, FRAMES, SIZE, STEP = 6, 128, (256, 192), 0.03


def prepare():
    HOME.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(16)
    for i in range(VIDEOS):
        if (path := HOME / f"{i:02d}.webp").exists():
            continue
        rough = Image.fromarray(rng.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 4, 3), dtype=np.uint8))
        wide = rough.resize((SIZE[0] * 2, SIZE[1]), Image.BICUBIC)
        frames = [wide.crop((4 * k, 0, 4 * k + SIZE[0], SIZE[1])) for k in range(FRAMES)]  # the camera pans
        part = path.with_suffix(".part")
        frames[0].save(part, "WEBP", save_all=True, append_images=frames[1:], kmax=0, quality=60, method=0)
        part.rename(path)


class Frames(Dataset):
    def __init__(self):
        self.videos = None

    def __len__(self):
        return VIDEOS * FRAMES

    def __getitem__(self, i):
        if self.videos is None:
            self.videos = [Image.open(HOME / f"{v:02d}.webp") for v in range(VIDEOS)]
        video = self.videos[i // FRAMES]
        video.seek(i % FRAMES)  # <- blame
        return torch.from_numpy(np.asarray(video.convert("RGB")).copy()).permute(2, 0, 1)  # <- blame


def main():
    prepare()
    loader = DataLoader(Frames(), batch_size=8, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 90 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
