"""Tokenizers of transformers and of the library below it, by their class."""

from __future__ import annotations

from typing import Final

from pipeprof.measure.probe.adapters.staged import Seam, staged, transform_of_first

SEAMS: Final[tuple[Seam, ...]] = (
    (
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase",
        "__call__",
        staged(transform_of_first, outermost=True),
    ),
    ("tokenizers:Tokenizer", "encode", staged(transform_of_first, outermost=True)),
    ("tokenizers:Tokenizer", "encode_batch", staged(transform_of_first, outermost=True)),
    ("tokenizers:Tokenizer", "encode_batch_fast", staged(transform_of_first, outermost=True)),
)
