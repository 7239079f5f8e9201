"""The sections of one run's page, in their order."""

from __future__ import annotations

from pipeprof.analyse.resources.makeup import read_makeup
from pipeprof.analyse.why.lines import read_lines
from pipeprof.report.page import about, lines, storage, waiting, what_if, where, workers
from pipeprof.report.page.section import Section
from pipeprof.report.page.source import Source, no_source
from pipeprof.report.wording.view import RunView
from pipeprof.simulate.forecast import Forecast


def sections(forecast: Forecast, facts: RunView, source: Source = no_source) -> list[Section]:
    """Draw the sections after the first screen. Without a measured step most have nothing to show."""
    analysis, attribution = forecast.analysis, forecast.analysis.attribution
    run = analysis.run
    parts = [where.where(facts, read_makeup(run)), lines.which_lines(read_lines(run), source)]
    if attribution is not None and analysis.counts is not None:
        parts += [where.when(analysis, attribution), waiting.waits(analysis, analysis.counts)]
    parts.append(workers.workers(analysis))
    if attribution is not None:
        parts += [
            storage.storage(analysis, attribution.window),
            what_if.what_if(forecast),
            what_if.trust(forecast, facts),
        ]
    return [*parts, about.about(facts)]
