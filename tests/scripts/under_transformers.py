"""A training script under the Trainer of transformers, which makes its loaders. It knows no pipeprof."""

import tempfile

import torch
import transformers
from torch.utils.data import Dataset


class Tokens(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        words = torch.arange(index, index + 8) % 32
        return {"input_ids": words, "labels": words}


def main():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    model = transformers.GPT2LMHeadModel(config)
    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            dataloader_num_workers=1,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=Tokens(), eval_dataset=Tokens())
        trainer.train()
        print(f"loss {trainer.evaluate()['eval_loss']:.8f}")


if __name__ == "__main__":
    main()
