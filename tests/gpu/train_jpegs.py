"""A script as people write it: a network on JPEGs from a disk, on whichever device torch sees.

    python train_jpegs.py DIRECTORY STEPS [NETWORK] [BATCH] [SIDE]

Prints its steps a second after the first ones.
"""

from __future__ import annotations

import sys
import time

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def main() -> None:
    folder, steps = sys.argv[1], int(sys.argv[2])
    network, batch, side = (*sys.argv[3:6], *("resnet50", "32", "224")[len(sys.argv[3:6]) :])
    there = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if there else torch.device("cpu")
    images = datasets.ImageFolder(
        folder,
        transforms.Compose(
            [
                transforms.RandomResizedCrop(int(side)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )
    loader = DataLoader(
        images, batch_size=int(batch), shuffle=True, num_workers=2, pin_memory=there, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip
    model = torchvision.models.get_model(network, weights=None, num_classes=10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    done, first, began = 0, max(2, steps // 5), 0.0
    while done < steps:
        for batch in loader:
            if done == first:
                began = time.monotonic()
            pictures, labels = (each.to(device, non_blocking=True) for each in batch)
            loss = criterion(model(pictures), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    if there:
        torch.accelerator.synchronize()
    print(f"steps/s {(done - first) / (time.monotonic() - began)}", flush=True)


if __name__ == "__main__":
    main()
