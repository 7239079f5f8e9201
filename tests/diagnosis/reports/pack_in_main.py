"""Trains a language model: the loader reads documents, the loop cuts them into rows of equal length."""

import os
import random
import re
import time

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
ROW, ROWS, STEP = 512, 48, 0.02
WORD = re.compile(r"\w+|[^\w\s]")


class Texts(Dataset):
    def __init__(self):
        rng = random.Random(10)
        words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(5000)]
        self.texts = [" ".join(rng.choices(words, k=rng.randint(80, 400))) + "." for _ in range(400)]

    def __len__(self):
        return 1_000_000

    def __getitem__(self, i):
        return self.texts[i % 400]


def tokens_of(text, table):
    found = []
    for word in WORD.findall(text):  # <- blame
        for cut in range(0, len(word), 3):  # <- blame
            piece = word[cut : cut + 3]  # <- blame
            found.append(table.setdefault(piece, len(table)))  # <- blame
    return found


def packed(loader):
    table, row, rows = {}, [], []
    for texts in loader:
        for text in texts:
            for token in tokens_of(text, table):
                row.append(token)
                if len(row) == ROW:
                    rows.append(row)
                    row = []
                    if len(rows) == ROWS:
                        yield torch.tensor(rows)
                        rows = []


def main():
    loader = DataLoader(Texts(), batch_size=8, shuffle=False, num_workers=2, collate_fn=list)
    for step, batch in enumerate(packed(loader)):
        if step >= 300 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
