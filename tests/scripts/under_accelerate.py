"""A training script under Accelerate, whose `prepare` rebuilds the loader. It knows nothing of pipeprof."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    data = TensorDataset(torch.randn(48, 20), torch.arange(48) % 2)
    model = nn.Linear(20, 2)
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        DataLoader(data, batch_size=8, shuffle=True, num_workers=2),
    )
    for _ in range(2):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
    print(f"loss {loss.item():.6f}")


if __name__ == "__main__":
    main()
