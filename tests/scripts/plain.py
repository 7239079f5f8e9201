"""A plain training script, as a tutorial would have it. It knows nothing of pipeprof."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(20, generator=generator), index % 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", default=None)
    parser.add_argument("--end", default="well", choices=["well", "error", "exit", "interrupt"])
    options = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Linear(20, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    context = options.start if options.workers else None
    loader = DataLoader(
        Noise(), batch_size=8, shuffle=True, num_workers=options.workers, multiprocessing_context=context
    )
    for _ in range(options.epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
    print(f"loss {loss.item():.6f}")
    if options.end == "error":
        raise ValueError("this script ends badly")
    if options.end == "exit":
        raise SystemExit(7)
    if options.end == "interrupt":
        raise KeyboardInterrupt


if __name__ == "__main__":
    main()
