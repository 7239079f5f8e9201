"""Two ranks, for `accelerate launch`."""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    loader = DataLoader(TensorDataset(torch.zeros(320, 8)), batch_size=4, num_workers=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for (batch,) in loader:
        accelerator.backward(model(batch).sum())
        optimizer.step()
