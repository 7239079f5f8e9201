"""Trains one epoch on a stream of 4,000 records."""

import os
import time

import torch
from torch.utils.data import DataLoader, IterableDataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
RECORDS, STEP = int(4000 * SCALE), 0.005


def parse(i):
    text = ",".join(str((i * 31 + k) % 997) for k in range(9000))  # <- blame
    return torch.tensor([int(part) for part in text.split(",")], dtype=torch.int32)  # <- blame


class Stream(IterableDataset):
    def __iter__(self):
        for i in range(RECORDS):
            yield i, parse(i)


def main():
    seen = []
    for ids, batch in DataLoader(Stream(), batch_size=8, num_workers=2):
        seen += ids.tolist()
        time.sleep(STEP)
    print(f"trained on {len(seen)} records, {len(set(seen))} of them different")


if __name__ == "__main__":
    main()
