"""Trains a language model on packed rows from a loader that can resume in the middle of an epoch."""

import copy
import os
import random
import time

import torch
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
ROW, WAITING, STEP = 1024, 600, 0.01


class Packed(IterableDataset):
    def __init__(self):
        self.waiting, self.row, self.read = [], [], 0

    def document(self):
        self.read += 1
        words = random.Random(self.read * 16 + get_worker_info().id)
        return [words.getrandbits(15) for _ in range(words.randint(200, 600))]

    def __iter__(self):
        while True:
            while len(self.waiting) < WAITING:
                self.waiting.append(self.document())
            self.row += self.waiting.pop(random.randrange(WAITING))
            if len(self.row) >= ROW:
                yield torch.tensor(self.row[:ROW])
                self.row = self.row[ROW:]

    def state_dict(self):
        return {"waiting": copy.deepcopy(self.waiting), "row": list(self.row), "read": self.read}  # <- blame

    def load_state_dict(self, state):
        self.waiting, self.row, self.read = state["waiting"], state["row"], state["read"]


def main():
    loader = StatefulDataLoader(Packed(), batch_size=8, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 250 * SCALE:
            break
        time.sleep(STEP)
        if step % 100 == 99:
            torch.save(loader.state_dict(), os.devnull)


if __name__ == "__main__":
    main()
