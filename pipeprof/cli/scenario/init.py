"""`pipeprof init NAME`: a commented scenario to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pipeprof.errors import ScenarioError

TEMPLATE: Final = """\
# A scenario says what to measure. Run it with:  pipeprof run {file}
# Lines that begin with "# " before a key show what else may be said; the values are examples.
# Completion in an editor: `pipeprof schema > schema.json`, and as the first line of this file
#   # yaml-language-server: $schema=schema.json

# name: mine               # by default the name of this file
about: Say in a sentence what this is to show.

data:
  format: jpeg_folder        # jpeg_folder, tensor_files, tar_shards: made for you;
                             # image_folder: your own images; imported: your own dataset
  samples: 1024              # how many to make, or at most how many to use of your own
  # sample_bytes: 110000     # mean size of a made sample
  # path: /data/train        # of image_folder: one directory a class
  # import: package.module:make_dataset

storage:
  tier: ssd                  # hdd, ssd, nvme, network: emulated; ram, pinned: memory
  # device: sata-ssd         # a preset of that tier
  # figures:                 # change single figures of the device
  #   bandwidth_bytes_per_s: 250e6
  # path: /mnt/disk          # a real directory: no storage is emulated then
  # cache: warm              # what the page cache holds of it at the start: cold, warm
  # keep: decoded            # what ram and pinned hold: encoded, decoded

loader:
  batch_size: 32
  workers: 4
  # prefetch: 4              # batches that each worker holds ready
  # pin_memory: true
  # persistent_workers: true
  # in_order: false
  # start_method: forkserver

accelerator:
  kind: auto                 # torch's accelerator, else emulated; or device, cuda, …, cpu, emulated
  # preset: h100/resnet50    # of the emulated one ...
  # step_ms: 160             # ... or the time of one step
  # sync: true               # the loop waits for each step

# model:                     # where the accelerator really computes (a device, cpu)
#   name: resnet18           # two_layer_net, or a classification model of torchvision
#   optimizer: momentum

run:
  seconds: 20                # ends at the first limit reached
  # steps: 200
  # epochs: 2
  warmup_steps: 5            # recorded, and left out of the verdict
  # telemetry_hz: 2          # looks a second at CPU, memory, disks, GPUs: 10 if not said, 0 for none

# expect:                    # checked after the run
#   cause: storage-bandwidth
#   max_stall: 0.2

# matrix:                    # one run for each combination
#   storage.tier: [hdd, ssd]
#   loader.workers: [0, 2, 4]
"""


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Write NAME.yaml, a commented scenario to edit. Never overwrites."""
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    text = TEMPLATE.replace("{file}", str(path))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ScenarioError(f"{path} exists", "choose another name") from error
    except OSError as error:
        raise ScenarioError(
            f"{path} cannot be written: {error.strerror}", "choose a directory that can be"
        ) from error
    click.echo(f"wrote {path}; run it with: pipeprof run {path}")
