"""Command that tries a fix on the very run that was measured: copied and pasted, it runs.

It is the run's own command, as it was written down: what looked like a credential is struck out in it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from pipeprof.analyse.verdict import MIN_STEPS, MIN_WALL_NS
from pipeprof.record.meta import LoaderMeta, RunMeta
from pipeprof.redact import STRUCK
from pipeprof.vocabulary import fixes
from pipeprof.vocabulary.arguments import KEY_OF, value_text

CACHED: Final = "cached"
"""Word of `--try` for samples that are kept once they are made."""
_ALL: Final = "loader"
_FORK: Final = {"multiprocessing_context": "fork"}
_TRIED: Final = (
    fixes.ONE_THREAD.word,
    fixes.GC_FREEZE.word,
    fixes.AFFINITY.word,
    fixes.FILE_SYSTEM_SHARING.word,
    CACHED,
)
"""Fixes that `trace --try` carries out."""


def of_fix(
    word: str,
    arguments: Mapping[str, Any],
    keys: Sequence[str],
    meta: RunMeta,
    loader: LoaderMeta,
    others: bool,
) -> str:
    """Return the command that tries the fix `word`; empty if none does without an edit.

    `arguments` are those of the DataLoader that it changes, `keys` those of a scenario with their values.
    With `others` the run has more loaders than `loader`, and it alone is changed.
    """
    if meta.world_size is not None and meta.world_size > 1:
        return ""  # its launcher is not in the command
    if word == fixes.FORK.word and not arguments:
        arguments = _FORK
    words = list(meta.command)
    if meta.kind == "trace" and meta.script_words:
        if trial := _trial(word, meta):
            own, script = words[: -meta.script_words], words[-meta.script_words :]
            return shlex.join([*_without(own, {}), "--try", trial, *script])
        return _of_script(words, meta.script_words, arguments, loader, others)
    if meta.kind == "bench" and "run" in words[1:4] and not meta.settings.cell:
        wanted = [
            f"{KEY_OF[name]}={value_text(value)}" for name, value in arguments.items() if name in KEY_OF
        ]
        return _of_scenario(words, wanted or list(keys))
    return ""


def _trial(word: str, meta: RunMeta) -> str:
    """Return what `--try` takes for a fix; empty if it takes nothing."""
    if word != fixes.RAM.word:
        return word if word in _TRIED else ""
    directory = data_directory(meta)
    return f"{word}={directory}" if directory else ""


def data_directory(meta: RunMeta) -> str:
    """Return the common directory of the data files that were recorded; empty if none were."""
    files = [PurePosixPath(each.path) for each in meta.reading.files if each.path]
    if not files or not all(file.is_absolute() for file in files):  # a URL
        return ""
    shared = [each for each in files[0].parents if all(file.is_relative_to(each) for file in files)]
    return str(shared[0]) if len(shared[0].parts) > 2 else ""


def again(meta: RunMeta) -> list[str]:
    """Return the words behind `pipeprof` that repeat a run in a new place; empty if none do.

    None do if the run was a rank's, a cell's of a matrix or a wrapper's, or if a part of its command was
    struck out.
    """
    words = list(meta.command)
    verb = {"trace": "trace", "bench": "run"}.get(meta.kind, "")
    is_whole = not any(STRUCK in word for word in words) and not (
        meta.kind == "trace" and not meta.script_words
    )
    if verb not in words[1:4] or not is_whole or (meta.world_size or 1) > 1 or meta.settings.cell:
        return []
    at, script = words.index(verb, 1), len(words) - (meta.script_words or 0)
    return [*_without(words[at:script], {}), *words[script:]]


SPARE: Final = 1.5
"""Factor over the least time of a conclusive run: the next one may be faster."""


def of_longer(meta: RunMeta, steps: int, wall_ns: int) -> str:
    """Return the command that measures enough steps for a verdict; empty if the program ends by itself.

    `steps` were measured, in `wall_ns`; at least twice as many are asked for.
    """
    words = list(meta.command)
    long_enough = round(SPARE * MIN_WALL_NS * steps / wall_ns) if wall_ns else 0
    wanted = max(2 * MIN_STEPS, 2 * steps, long_enough) + (meta.warmup_steps or 0)
    if meta.kind == "trace" and meta.script_words and meta.stopped:
        own, script = words[: -meta.script_words], words[-meta.script_words :]
        return shlex.join([*_without(own, {}, ("--steps", "--seconds")), "--steps", str(wanted), *script])
    if meta.kind == "bench" and "run" in words[1:4] and not meta.settings.cell:
        limits = {"epochs": meta.settings.run.epochs, "seconds": meta.settings.run.seconds}
        more = wanted / max(1, steps + (meta.warmup_steps or 0))
        asked = {"run.steps": str(wanted)}
        asked |= {f"run.{name}": str(math.ceil(limit * more)) for name, limit in limits.items() if limit}
        return _of_scenario(words, [f"{key}={value}" for key, value in asked.items()])
    return ""


def _of_script(
    words: list[str], script_words: int, arguments: Mapping[str, Any], loader: LoaderMeta, others: bool
) -> str:
    own, script = words[:-script_words], words[-script_words:]
    name = re.sub(r"-\d+$", "", loader.name) if others and loader.file and not loader.in_library else _ALL
    wanted = {f"{name}.{argument}": value_text(value) for argument, value in arguments.items()}
    if not wanted:
        return ""
    settings = [part for key, value in wanted.items() for part in ("--set", f"{key}={value}")]
    return shlex.join([*_without(own, wanted), *settings, *script])


def _of_scenario(words: list[str], wanted: Sequence[str]) -> str:
    if not wanted:
        return ""
    keys = {each.partition("=")[0]: "" for each in wanted}
    return shlex.join([*_without(words, keys), *(part for each in wanted for part in ("--set", each))])


def _without(words: Sequence[str], keys: Mapping[str, str], options: Sequence[str] = ()) -> list[str]:
    """Return a command without its run directory, `options`, and the settings that are replaced."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in ("--out", "--set", "--name", *options):
            value = value if equals else next(rest, "")
            if option == "--set" and value.partition("=")[0] not in keys:
                kept += ["--set", value]
        else:
            kept.append(word)
    return kept
