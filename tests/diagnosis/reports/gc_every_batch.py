"""Trains on short documents, with a large index of Python objects; memory is kept flat."""

import gc
import os
import time

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
STEP = 0.01


class Documents(Dataset):
    def __init__(self):
        self.index = [
            {"shard": i % 64, "spans": [[i, i + 7], [i + 9, i + 30]], "tags": [i % 5]} for i in range(60_000)
        ]

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        spans = self.index[i]["spans"]
        return torch.tensor([end - begin for begin, end in spans])


def to_batch(samples):
    batch = torch.stack(samples)
    gc.collect()  # <- blame
    return batch


def main():
    loader = DataLoader(Documents(), batch_size=16, shuffle=True, num_workers=2, collate_fn=to_batch)
    for step, batch in enumerate(loader):
        if step >= 200 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
