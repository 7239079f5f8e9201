"""Claim 8 of the lecture: one two-layer net in every way of the notes, and the optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from pipeprof import units
from pipeprof.lesson.claims import draw
from pipeprof.lesson.claims.claim import Claim, blank_claim
from pipeprof.lesson.claims.compute import step_ns
from pipeprof.lesson.claims.data import unobserved
from pipeprof.lesson.claims.draw import Bar
from pipeprof.lesson.kept import WayTrained
from pipeprof.lesson.results import Results
from pipeprof.report.page.section import Table
from pipeprof.vocabulary.owners import ACCELERATOR

AGREE: Final = 1e-3
"""Relative difference in loss at the last iteration that counts as agreement (float32)."""
OPTIMIZERS: Final = {
    "sgd": "SGD",
    "momentum": "SGD, momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "lbfgs": "L-BFGS",
}


class Trained(NamedTuple):
    """A way that has trained."""

    label: str
    d_in: int
    last_loss: float
    iterations: int
    iteration_ns: float


def two_layer(results: Results) -> Claim:
    """Build claim 8: the two-layer net in every way, and the optimisers."""
    claim, outcomes = blank_claim(8, results.directory), results.two_layer.outcomes
    trained = [each for each in map(_trained, outcomes) if each is not None]
    if trained:
        _ways(claim, trained)
    if outcomes:
        claim.tables.append(_table(outcomes))
    else:
        claim.missing.append(f"The ways to write it: not observed ({results.why_missing('8_two_layer')}).")
    if outcomes and not any(outcome.device != "cpu" for outcome in outcomes):
        claim.missing.append("On a GPU: not observed, there is none here.")
    _optimizers(results, claim)
    if not claim.answer and claim.more:
        claim.answer = claim.more.pop()
    return claim if claim.answer else unobserved(claim, results, "8_two_layer")


def _trained(outcome: WayTrained) -> Trained | None:
    if not outcome.losses or outcome.iteration_ns is None:
        return None
    losses = outcome.losses
    return Trained(_label(outcome), outcome.d_in, losses[-1], len(losses), outcome.iteration_ns)


def _label(outcome: WayTrained) -> str:
    return f"{outcome.way}, GPU" if outcome.device != "cpu" else outcome.way


def _ways(claim: Claim, trained: Sequence[Trained]) -> None:
    widths = list(dict.fromkeys(each.d_in for each in trained))
    claim.answer, *claim.more = (
        _agreement(width, [each for each in trained if each.d_in == width]) for width in widths
    )
    first = [each for each in trained if each.d_in == widths[0]]
    claim.short = f"{len(first)} ways end at {'one loss' if apart(first) <= AGREE else 'different losses'}."
    bars = [
        Bar(each.label, each.iteration_ns / 1e3, units.duration(each.iteration_ns), ACCELERATOR.name)
        for each in first
    ]
    title = f"One iteration in each way, {widths[0]} inputs (measured)"
    how = "The axis is logarithmic: bars of one and of two lengths may differ ten times."
    claim.charts.append(draw.bars("claim8_ways", bars, "time of an iteration, µs", title, how, log=True))


def apart(trained: Sequence[Trained]) -> float:
    """Return how far the last losses are from each other, relative to the smallest."""
    last = [each.last_loss for each in trained]
    return (max(last) - min(last)) / abs(min(last)) if min(last) else float("inf")


def _agreement(width: int, trained: Sequence[Trained]) -> str:
    verb = "agree" if apart(trained) <= AGREE else "do not agree"
    fastest = min(trained, key=lambda each: each.iteration_ns)
    return (
        f"With {width} inputs {len(trained)} ways {verb} in the loss at iteration {trained[0].iterations}: "
        f"{trained[0].last_loss:.4g}, within {apart(trained):.0e} of each other ({AGREE:g} was allowed); "
        f"the fastest is {fastest.label} with {units.duration(fastest.iteration_ns)} an iteration (measured)."
    )


def _table(outcomes: Sequence[WayTrained]) -> Table:
    cells = []
    for outcome in outcomes:
        if outcome.losses:
            times = map(units.duration, (outcome.iteration_ns, outcome.first_iteration_ns))
            cells.append([_label(outcome), str(outcome.d_in), f"{outcome.losses[-1]:.6g}", *times])
        else:
            label = f"{_label(outcome)} (not observed: {outcome.why})"
            cells.append([label, str(outcome.d_in), *[units.NOT_OBSERVED] * 3])
    heads = ["way", "inputs", "last loss", "each iteration", "first iteration"]
    return draw.table("Every way", heads, cells)


def _optimizers(results: Results, claim: Claim) -> None:
    times = {
        label: step_ns(results.run(f"8_optimizers-optimizer={word}")) for word, label in OPTIMIZERS.items()
    }
    shown = [Bar(label, ns / 1e3, units.duration(ns), ACCELERATOR.name) for label, ns in times.items() if ns]
    if not shown:
        claim.missing.append(f"The optimisers: not observed ({results.why_missing('8_optimizers')}).")
        return
    cheap, dear = min(shown, key=lambda bar: bar.value), max(shown, key=lambda bar: bar.value)
    claim.more.append(
        f"A step with {cheap.label} takes {cheap.text}, with {dear.label} {dear.text} (measured)."
    )
    how = "L-BFGS evaluates the net up to four times in a step."
    title = "One step of training with each optimiser (measured)"
    claim.charts.append(draw.bars("claim8_optimizers", shown, "time of a step, µs", title, how))
