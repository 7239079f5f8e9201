"""The slowest operator by a source's own statistics."""

from __future__ import annotations

from pipeprof.analyse.resources.operators import operator_times, sentence, slowest_operator
from pipeprof.record.meta import LoaderMeta, OperatorMeta, RunMeta
from tests.factory import S


def made_by(*passes: tuple[OperatorMeta, ...]) -> RunMeta:
    return RunMeta(loaders=tuple(LoaderMeta(i, "Ray Data", operators=each) for i, each in enumerate(passes)))


def test_passes_over_iterables_that_are_made_anew_are_summed() -> None:
    epoch = (OperatorMeta("Read", 1 * S, S // 2, 40, 4), OperatorMeta("Map(f)", 4 * S, None, 40, 4))
    read, mapped = operator_times(made_by(epoch, epoch))
    assert (read.wall_ns, read.share, read.cpu_ns, read.rows, read.tasks) == (2 * S, 0.2, S, 80, 8)
    assert (mapped.share, mapped.cpu_ns) == (0.8, None)
    assert slowest_operator(made_by(epoch, epoch)) == mapped
    assert sentence(mapped) == "80% of the time of the source's own tasks, 8.00 s, went into Map(f)"


def test_what_is_not_observed_names_nobody() -> None:
    assert slowest_operator(made_by((), (OperatorMeta("Read"),))) is None
    assert slowest_operator(made_by((OperatorMeta("Read", 0),))) is None
