"""The user's own data set: `package.module:callable`, imported and called."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from pipeprof.errors import DataError
from pipeprof.suggest import nearest


def imported_dataset(target: str) -> Dataset[Any]:
    """Import `target`, call it without arguments and return the data set that it makes.

    Modules are looked for in the current directory too. Raises `DataError` if the module or the callable is
    missing, raises, or returns no data set.
    """
    module, _, name = target.partition(":")
    function = _attribute(_module(module, target), name, target)
    if not callable(function):
        raise DataError(f"data.import: {target} is not callable", "give a function or class that makes it")
    try:
        dataset: Dataset[Any] = function()
    except (Exception, SystemExit) as error:
        raise _raised(f"{target}()", error) from error
    _check(dataset, target)
    return dataset


def _module(name: str, target: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does; workers get the same path
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _raised(f"importing {name}", error) from error
        raise DataError(
            f"data.import: {target}: there is no module {error.name}, neither installed nor in {here}",
            "give package.module:callable, and run where the module can be imported",
        ) from error
    except (Exception, SystemExit) as error:
        raise _raised(f"importing {name}", error) from error


def _attribute(module: Any, name: str, target: str) -> Any:
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = [word for word in vars(value) if not word.startswith("_")]
            raise DataError(f"data.import: {target}: {value.__name__} has no {part}", nearest(part, public))
        value = getattr(value, part)
    return value


def _raised(doing: str, error: BaseException) -> DataError:
    """Return an error that names the line of the user's code that raised, the last of the traceback."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return DataError(
        f"data.import: {doing} raised {type(error).__name__}: {error}",
        f"see {where.filename}, line {where.lineno}",
    )


def _check(dataset: Any, target: str) -> None:
    if isinstance(dataset, IterableDataset):
        return
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or isinstance(
        dataset, str | dict
    ):
        raise DataError(
            f"data.import: {target}() returned a {type(dataset).__name__}, which is not a data set",
            "return a torch Dataset: with __getitem__ and __len__, or an IterableDataset",
        )
    if len(dataset) == 0:
        raise DataError(f"data.import: {target}() returned an empty data set", "check what it reads")
