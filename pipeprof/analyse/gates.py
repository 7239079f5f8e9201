"""`pipeprof check`: gates for CI that know noise.

A gate compares a figure, which has an interval, with a limit. It fails if the figure is past the limit beyond
noise, passes if it is not past it, and is inconclusive in between: the figure is past the limit and its
interval is not. A regression fails if it is past the limit and its interval leaves out 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.differences import Figure, compare, figures
from pipeprof.record.files import write_atomically
from pipeprof.units import printable
from pipeprof.vocabulary import causes


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate with its outcome. `passed` is None if the run cannot tell."""

    name: str
    passed: bool | None
    says: str

    @property
    def word(self) -> str:
        """Return the word for the outcome, for a list."""
        return {True: "passed", False: "FAILED", None: "inconclusive"}[self.passed]


def check(
    analysis: Analysis,
    max_stall: float | None = None,
    min_utilization: float | None = None,
    baseline: Analysis | None = None,
    max_regression: float | None = None,
    force: bool = False,
) -> list[Gate]:
    """Try the gates that were asked for. Raises `PipeprofError` for a baseline that cannot be compared."""
    if analysis.verdict.cause == causes.INCONCLUSIVE.word or analysis.attribution is None:
        doubt = next((doubt for doubt in analysis.verdict.doubts if doubt.decisive), None)
        why = f"{doubt.problem}; {doubt.remedy}" if doubt else "no owner of the time was observed"
        return [Gate("conclusive", None, f"the run is inconclusive: {why}")]
    measured, gates = figures(analysis), []
    if max_stall is not None:
        gates.append(at_most("max-stall", "stall", measured["stall_share"], max_stall))
    if min_utilization is not None:
        gates.append(at_least("min-utilization", "utilisation", measured["utilization"], min_utilization))
    if baseline is not None and max_regression is not None:
        gates.append(_regression(analysis, baseline, max_regression, force))
    return gates


def at_most(name: str, what: str, figure: Figure, limit: float) -> Gate:
    """Pass a figure up to `limit`, fail one whose interval lies above it; in between it is undecided."""
    if figure.value is None:
        return Gate(name, None, f"{what} {units.NOT_OBSERVED}")
    says = f"{what} {_said(figure)}, at most {units.percent(limit)} allowed"
    if figure.value <= limit:
        return Gate(name, True, says)
    return Gate(name, False if figure.low is not None and figure.low > limit else None, says)


def at_least(name: str, what: str, figure: Figure, limit: float) -> Gate:
    """Pass a figure from `limit` on, fail one whose interval lies below it; in between it is undecided."""
    if figure.value is None:
        return Gate(name, None, f"{what} {units.NOT_OBSERVED}")
    says = f"{what} {_said(figure)}, at least {units.percent(limit)} asked for"
    if figure.value >= limit:
        return Gate(name, True, says)
    return Gate(name, False if figure.high is not None and figure.high < limit else None, says)


def _said(figure: Figure) -> str:
    interval = units.interval((figure.low, figure.high)) if figure.low is not None and figure.high else ""
    return units.percent(figure.value) + (f" ({interval})" if interval else "")


def _regression(analysis: Analysis, baseline: Analysis, limit: float, force: bool) -> Gate:
    """Measure the lost throughput as a share of the baseline's."""
    name = "max-regression"
    compared = compare([baseline, analysis], force)[0]
    rate = compared.differences[0]
    if rate.relative is None:
        return Gate(name, None, f"throughput {units.NOT_OBSERVED}")
    now, then = units.sample_rate(rate.other.value), units.sample_rate(rate.base.value)
    says = f"{now} against {then} of the baseline, {units.signed_percent(rate.relative)}; "
    says += f"at most {units.percent(limit)} allowed"
    if compared.unfair and not force:
        return Gate(name, None, f"{says}; no fair comparison: {'; '.join(compared.unfair)}")
    if -rate.relative <= limit:
        return Gate(name, True, says)
    if compared.cores is not None and compared.cores.sentence:
        says += f"; {compared.cores.sentence}"
        explained = compared.cores.explains or 0.0
        if explained < 0 and explained - rate.relative <= limit:
            return Gate(name, None, f"{says}: no more than that is left to explain")
    if rate.beyond_noise:
        return Gate(name, False, says)
    return Gate(name, None, f"{says}; {rate.says}")


def exit_code(gates: Sequence[Gate]) -> int:
    """Return 1 if a gate failed, 3 if one is inconclusive and none failed, else 0."""
    if any(gate.passed is False for gate in gates):
        return 1
    return 3 if any(gate.passed is None for gate in gates) else 0


def write_junit(gates: Sequence[Gate], run: Path, path: Path) -> Path:
    """Write the gates as a JUnit report: a failure for a failed one, an error for an inconclusive one."""
    failed = sum(gate.passed is False for gate in gates)
    unsure = sum(gate.passed is None for gate in gates)
    counts = {"tests": str(len(gates)), "failures": str(failed), "errors": str(unsure)}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "pipeprof check", **counts})
    for gate in gates:
        names = {"classname": printable(str(run)), "name": printable(gate.name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if gate.passed is not True:
            kind = "failure" if gate.passed is False else "error"
            ElementTree.SubElement(case, kind, {"message": printable(gate.says)}).text = printable(gate.says)
    text = ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)
    write_atomically(path, text + "\n")
    return path
