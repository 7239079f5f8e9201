"""Instructions for reading: each said once, for the pages and for `pipeprof help TOPIC`."""

from __future__ import annotations

from typing import Final

WHERE: Final = (
    "Top: an average step, its computing and what kept it waiting. Bottom: the critical path, the chain of "
    "work that set its length, in shares of it. Shorten what is long in the bottom bar."
)
WORKERS_INLINE: Final = (
    "Zoomed out, the height of a colour is its share of the time. Ctrl+scroll or +/− zooms, drag or arrow "
    "keys move, hover shows a batch."
)
WORKERS: Final = (
    "One row per process; zoomed out, the height of a colour is its share of the time. Ctrl+scroll or +/− "
    "zooms, drag or arrow keys move, hover shows a batch."
)
STAGES: Final = (
    "Time that one worker spends on each stage of a batch, waiting for a core included and inner stages "
    "left out. Half of the batches take less than p50."
)
STAGES_INLINE: Final = (
    "Time that the loop itself spends on each stage of a batch, waiting for a core included and inner stages "
    "left out. Half of the batches take less than p50."
)
WAY: Final = (
    "Below, the way of a batch from its worker: pickling and writing it, in the pipe since it was asked for, "
    "unpickling it and mapping its tensors."
)
FIXES: Final = (
    "First the change that bears on the cause and gains the most, of equal gains the least trouble; then "
    "other changes by predicted gain. To check one, run its command, then `pipeprof compare`."
)
WHAT_IF: Final = (
    "Predicted share of the time spent waiting for data, in percent, for other numbers of workers and "
    "prefetched batches on the same storage."
)
GAINS: Final = "A line spans the interval that should hold the measured gain nine times in ten."
TRUST: Final = (
    "The predictor replays this run unchanged. The closer it comes to what was measured, the more its other "
    "answers are worth; only a run with the fix proves it."
)
RANKS: Final = (
    "Data wait: this rank waited for its own batch. Rank wait: it waited for slower ranks. Delayed others: "
    "time that all other ranks together lost to it."
)
SHARDS: Final = (
    "A shard is a file of many samples. Delayed others: time that all other ranks waited for batches that "
    "this rank made from it, and its share of all their waiting for this rank's batches."
)
OPERATORS: Final = (
    "By the source's own statistics, along the way of the data. Tasks run beside each other and the loop: "
    "the times say which operator is the largest, not how long the loop waited for it."
)
SHARDS_OF_RUN: Final = (
    "A shard is a file of many samples; a batch counts for the one that was read from last. Slowest first. "
    "Unprobed batches do not tell theirs."
)
RANK_LEDGERS: Final = (
    "Each rank's ledger sums to its wall time; waiting is charged to the rank waited for and its cause."
)
BYTES: Final = "Each batch's bytes, averaged over the time that it took to load."
SINGLE_READS: Final = "Of the batches that are recorded in full."
