"""litdata and Mosaic Streaming: the shard that a sample is read from, by its file.

Both open a shard for each sample, or keep several open, so that the opened files do not show it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pipeprof.measure.probe.adapters.staged import Seam, Wrap
from pipeprof.measure.probe.batch import active_batch


def _from_shard(file: Callable[..., str]) -> Wrap:
    """Make a wrapper of a function that reads one sample: `file` finds the shard from its arguments."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any, **options: Any) -> Any:
            batch = active_batch()
            if batch is not None:
                with suppress(Exception):  # another version may take other arguments
                    batch.shard = file(*arguments, **options)
            return original(*arguments, **options)

        return read

    return wrap


def _of_litdata(
    loader: Any, index: int, chunk_index: int, chunk_filepath: str, *others: Any, **options: Any
) -> str:
    return str(chunk_filepath)


def _of_mosaic(reader: Any, *others: Any, **options: Any) -> str:
    return f"{reader.split}/{reader.raw_data.basename}".lstrip("/")


SEAMS: Final[tuple[Seam, ...]] = (
    *(
        (f"litdata.streaming.item_loader:{loader}", "load_item_from_chunk", _from_shard(_of_litdata))
        for loader in ("PyTreeLoader", "TokensLoader", "ParquetLoader")
    ),
    ("streaming.base.format.base.reader:Reader", "get_item", _from_shard(_of_mosaic)),
)
