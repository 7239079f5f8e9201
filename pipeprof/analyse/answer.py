"""One run, answered: attribution, verdict and the dictionary that other programs read (DESIGN §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeprof import trace
from pipeprof.analyse.attribution import Attribution, Ledger, attribute
from pipeprof.analyse.doubts import doubts_about
from pipeprof.analyse.facts import Facts, gather
from pipeprof.analyse.rates import throughput, utilization
from pipeprof.analyse.sentence import sentence
from pipeprof.analyse.verdict import MIN_STEPS, Doubt, Verdict, judge
from pipeprof.pipeline import Timeline, read_timeline
from pipeprof.trace import Run

JSON_SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """What a run says. `attribution`, `ledger` and `facts` are None where no step was measured."""

    run: Run
    timeline: Timeline
    attribution: Attribution | None
    facts: Facts | None
    ledger: Ledger | None
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return sentence(self.verdict, self.facts)

    def with_gains(self, gains: Mapping[str, float]) -> Answer:
        """The same answer, its fix chosen by predicted gains (fix to gain in share of throughput)."""
        if self.attribution is None or self.facts is None:
            return self
        return replace(self, verdict=judge(self.attribution, self.facts, self.verdict.doubts, gains))

    def as_dict(self) -> dict[str, Any]:
        """The dictionary of DESIGN §5: plain values, None where not known."""
        verdict, found, meta = self.verdict, self.attribution, self.run.meta
        device = meta.get("accelerator") or {}
        used, kind = (
            utilization(found, device.get("kind"), bool(device.get("emulated"))) if found else (None, None)
        )
        rate, _ = throughput(found) if found else (None, None)
        return {
            "schema": JSON_SCHEMA,
            "status": self.run.status,
            "verdict": {
                "band": verdict.band,
                "cause": verdict.cause,
                "detail": verdict.detail,
                "fix": verdict.fix,
                "sentence": self.sentence,
                "stall_share": verdict.stall_share,
                "stall_interval": list(verdict.stall_interval) if verdict.stall_interval else None,
                "doubts": [
                    {"name": doubt.name, "problem": doubt.problem, "remedy": doubt.remedy}
                    for doubt in verdict.doubts
                ],
            },
            "wall_ns": self.ledger.window.wall_ns if self.ledger else None,
            "ledger_ns": self.ledger.ledger_ns if self.ledger else None,
            "path_ns": self.ledger.path_ns if self.ledger else None,
            "utilization": used,
            "utilization_kind": kind,
            "throughput_samples_per_s": rate,
            "steps": int((~self.timeline.warmup).sum()),
            "emulated": list(meta.get("emulated") or []),
            "not_observed": list(found.not_observed if found else meta.get("not_observed") or []),
        }


def answer(run: Run) -> Answer:
    """Analyse an open run."""
    found = attribute(run)
    if found is None:
        doubt = Doubt("too-few-steps", "no step was measured", f"measure at least {MIN_STEPS} steps", True)
        verdict = Verdict(None, "inconclusive", "none", None, None, "too-few-steps", (doubt,))
        return Answer(run, read_timeline(run), None, None, None, verdict)
    facts = gather(run, found)
    doubts = doubts_about(run, found, facts)
    return Answer(run, found.timeline, found, facts, found.whole, judge(found, facts, doubts))


def load(path: Path | str) -> Answer:
    """Open and analyse a run directory. Raises `TraceError` where there is none."""
    return answer(trace.load(path))
