"""A training script under Lightning, with a validation loader. It knows nothing of pipeprof."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 2)

    def training_step(self, batch, _):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.layer(inputs), targets)

    def validation_step(self, batch, _):
        inputs, targets = batch
        self.log("loss", nn.functional.cross_entropy(self.layer(inputs), targets))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main():
    lightning.seed_everything(0)
    data = TensorDataset(torch.randn(48, 20), torch.arange(48) % 2)
    train = DataLoader(data, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    check = DataLoader(data, batch_size=12)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = Model()
    trainer.fit(model, train, check)
    print(f"loss {trainer.callback_metrics['loss'].item():.6f}")


if __name__ == "__main__":
    main()
