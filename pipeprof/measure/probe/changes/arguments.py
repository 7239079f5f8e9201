"""Other arguments for a script's DataLoaders: read from `--set`, checked, and put among the script's own.

Only arguments that do not change what is learned may be set: the same samples in the same batches.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeprof.errors import MeasureError
from pipeprof.record.meta import MOST_BATCHES_AHEAD, MOST_WORKERS
from pipeprof.suggest import nearest
from pipeprof.vocabulary.arguments import ARGUMENT_OF, value_text

ALL: Final = "loader"
"""Name under which all loaders of a script are addressed."""
THREADS: Final = "worker_threads"
"""Threads of torch in each worker: not an argument of DataLoader, set when a worker starts."""
ALIASES: Final = {knob: argument for knob, argument in ARGUMENT_OF.items() if knob != argument}
"""A scenario's names for arguments of DataLoader."""
_OF_LEARNING: Final = frozenset(
    ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "generator", "collate_fn", "dataset")
)
_WITHOUT_WORKERS: Final[Mapping[str, Any]] = {
    "prefetch_factor": None,
    "persistent_workers": False,
    "multiprocessing_context": None,
    "timeout": 0,
}
"""Values that DataLoader wants if it has no workers."""
_ENDINGS: Final = ("_dataloader", "_data_loader", "_loader", "_dl", "dataloader", "loader")


def _whole(least: int, most: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        return int(text) if text.isascii() and text.isdecimal() and least <= int(text) <= most else None

    return read


def _flag(text: str) -> bool | None:
    return {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False,
            "0": False}.get(text.lower())  # fmt: skip


def _method(text: str) -> str | None:
    return text if text in multiprocessing.get_all_start_methods() else None


@dataclass(frozen=True, slots=True)
class _Argument:
    read: Callable[[str], Any]
    """Reader of the text of its value; None if that cannot be."""
    values: str


_COUNT: Final = f"a whole number from 0 to {MOST_WORKERS}"
ARGUMENTS: Final[dict[str, _Argument]] = {
    "num_workers": _Argument(_whole(0, MOST_WORKERS), _COUNT),
    "prefetch_factor": _Argument(
        _whole(1, MOST_BATCHES_AHEAD), f"a whole number from 1 to {MOST_BATCHES_AHEAD}"
    ),
    "pin_memory": _Argument(_flag, "true or false"),
    "persistent_workers": _Argument(_flag, "true or false"),
    "in_order": _Argument(_flag, "true or false"),
    "multiprocessing_context": _Argument(
        _method, f"one of {', '.join(sorted(multiprocessing.get_all_start_methods()))}"
    ),
    THREADS: _Argument(_whole(1, 1024), "a whole number from 1 to 1024"),
}
"""Arguments that may be set, by DataLoader's name."""
_NEED_WORKERS: Final = ("prefetch_factor", "persistent_workers", "multiprocessing_context", THREADS)


@dataclass(frozen=True, slots=True)
class Changes:
    """Arguments to set, by the name of the loader; under `ALL` those for every loader."""

    by_loader: Mapping[str, Mapping[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.by_loader)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of single loaders."""
        return tuple(name for name in self.by_loader if name != ALL)

    def of(self, name: str) -> dict[str, Any]:
        """Return the arguments for the loader of that name; settings for it alone take precedence."""
        arguments = dict(self.by_loader.get(ALL, {}))
        for asked in self.names:
            if means(asked, name):
                own = self.by_loader[asked]
                if own.get("num_workers") == 0:
                    arguments = {key: value for key, value in arguments.items() if key not in _NEED_WORKERS}
                arguments |= own
        return arguments


def means(asked: str, name: str) -> bool:
    """Return True if `asked` is the loader's name, or that without its ending: `val` for `val_loader`."""
    return asked == name or any(f"{asked}{ending}" == name for ending in _ENDINGS)


def read_changes(texts: Sequence[str]) -> Changes:
    """Read `loader.num_workers=8`, `num_workers=8`, `val.prefetch=4`.

    Raises `MeasureError` for what cannot be set.
    """
    by_loader: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        loader, dot, name = key.strip().rpartition(".")
        if not dot and (name in ARGUMENTS or name in ALIASES):
            loader = ALL
        if not equals or not loader:
            raise MeasureError(f"--set {text}: no argument of a loader", "write it as loader.num_workers=8")
        argument = ALIASES.get(name, name)
        if argument in _OF_LEARNING:
            raise MeasureError(
                f"--set {text}: {name} changes what is learned", f"change it in the script; {_allowed()}"
            )
        if argument not in ARGUMENTS:
            known = (*ARGUMENTS, *ALIASES)
            raise MeasureError(f"--set {text}: {name} cannot be set", nearest(name, known))
        read = ARGUMENTS[argument].read(value.strip())
        if read is None:
            raise MeasureError(f"--set {text}: {value!r} cannot be", f"give {ARGUMENTS[argument].values}")
        by_loader.setdefault(loader, {})[argument] = read
    for loader, wanted in by_loader.items():
        _check(wanted, f"--set {loader}.num_workers=0", wanted.get("num_workers"))
    return Changes(by_loader)


def _allowed() -> str:
    return f"allowed: {', '.join(ARGUMENTS)}"


def _check(wanted: Mapping[str, Any], where: str, workers: Any) -> None:
    """Raise `MeasureError` if something is set that needs workers, and there are none."""
    needing = [name for name in _NEED_WORKERS if wanted.get(name)]
    if workers == 0 and needing:
        raise MeasureError(
            f"{needing[0]}={value_text(wanted[needing[0]])} cannot be set without workers ({where})",
            "set num_workers to 1 or more too, or leave it out",
        )


def resolve(given: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a constructor's arguments with those that are `wanted` instead of the `given` ones.

    What needs workers goes if they are set to none. Raises `MeasureError` for arguments that are incompatible
    with the script's own; `where` says which loader it is.
    """
    _check(wanted, where, wanted.get("num_workers", given.get("num_workers")))
    unknown = [name for name in wanted if name not in given and name != THREADS]
    if unknown:
        raise MeasureError(f"the class of {where} has no {unknown[0]}", f"leave {unknown[0]} out for it")
    without = _WITHOUT_WORKERS if wanted.get("num_workers") == 0 else {}
    kept = {name: without.get(name, value) for name, value in given.items()}
    return {**kept, **{name: value for name, value in wanted.items() if name != THREADS}}


def option(loader: str, argument: str, value: Any) -> str:
    """Return the text of a `--set` that gives `argument` that value."""
    return f"{loader}.{argument}={value_text(value)}"
