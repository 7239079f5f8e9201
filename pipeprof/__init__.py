"""Return whether the accelerator waits for data, why, and what would fix it.

Observe a loader that you build, or an existing one; batches, their order and the random state stay the same:

    loader = pipeprof.ProfiledDataLoader(dataset, batch_size=64, num_workers=2)
    for batch in loader:
        train(batch)
    print(loader.verdict())

    with pipeprof.profile(loader, out="runs/mine") as loader:
        for batch in loader:
            train(batch)

`with pipeprof.stage("augment"):` names a piece of your own code. Afterwards, or for a run that `pipeprof
trace train.py` wrote:

    run = pipeprof.load("runs/mine")
    print(run.verdict)                     # the sentence; run.verdict.as_dict() has every figure
    run.table("stages")                    # pyarrow; .to_pandas() where pandas is installed
    run.slowest(20)                        # samples, slowest first
    pipeprof.Forecast(run).fixes           # what would help, and by how much

`pipeprof.tune(dataset, step)` finds the loader's best arguments by measuring; within `with
pipeprof.emulate("hdd", path="data"):` a directory is as slow as a hard disk; `pipeprof.cached(dataset,
"ram")` keeps each sample after it was made once. Expected errors are `PipeprofError`s, with a remedy.

Each name is imported on first use: a program that only reads runs never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

__version__ = "0.1.0"

_HOMES: Final[dict[str, str]] = {
    "ProfiledDataLoader": "pipeprof.wrapper",
    "profile": "pipeprof.wrapper",
    "stage": "pipeprof.measure.probe.spans",
    "cached": "pipeprof.measure.probe.changes.cached",
    "emulate": "pipeprof.measure.storage.slow_directory",
    "probe_storage": "pipeprof.measure.host.storage_probe",
    "tune": "pipeprof.simulate.tuning.tune",
    "load": "pipeprof.analyse.analysis",
    "Forecast": "pipeprof.simulate.forecast",
    "PipeprofError": "pipeprof.errors",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeprof' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # `pipeprof.stage` is used in inner loops: the next look-up finds it at once
    return value


def load_ipython_extension(shell: Any) -> None:
    """Register the cell magic `%%pipeprof`; IPython calls this for `%load_ext pipeprof`."""
    importlib.import_module("pipeprof.integrations.notebook").register(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
