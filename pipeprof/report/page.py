"""The sections of one run's page, in their order (DESIGN §8)."""

from __future__ import annotations

from pipeprof.pipeline import measured_window
from pipeprof.report import about, advice, storage, waiting, where, workers
from pipeprof.report.facts import Answer, Facts
from pipeprof.report.section import Section


def sections(answer: Answer, facts: Facts) -> list[Section]:
    """Every section after the verdict and the fixes. Without a measured step most have nothing to show."""
    window = measured_window(answer.timeline)
    parts = [where.where(facts)]
    if window is not None and answer.attribution is not None:
        parts += [where.when(answer, window), waiting.waits(answer)]
    parts.append(workers.workers(answer))
    if window is not None and answer.attribution is not None:
        parts += [storage.storage(answer, window), advice.what_if(answer, facts), advice.trust(answer, facts)]
    return [*parts, about.about(facts)]
