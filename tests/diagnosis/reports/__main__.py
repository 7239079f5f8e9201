"""The exam of public reports: `python -m tests.diagnosis.reports [NAMES] [--runs N] [--keep DIR]`.

Prints a line for each run; of the whole exam the table is written to scores/DATE-COMMIT.md. A run waits for a
quiet machine, and is repeated once where other programs had its cores. `CASES_DIR` keeps the scripts' files.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tests.diagnosis.reports.exam import (
    CONFIDENTLY_WRONG,
    GRADES,
    Said,
    blamed,
    examine,
    graded,
    no_disk_limit_here,
    reported,
)
from tests.diagnosis.reports.truth import HERE, OWN, TRUTHS, Truth
from tests.timing import BUSY_CORES, OtherPrograms

BUSY = "busy machine"
"""Not judged: other programs had the cores, and that is what was said."""
HEAD = "| report | run | cause | mechanism | fix | stall | hot line | others | grade |\n" + "| --- " * 9 + "|"


def main() -> int:
    """Run the chosen reports; 0 where none was told confidently wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="reports to run; all without")
    parser.add_argument("--runs", type=int, default=1, help="how often each is run")
    parser.add_argument(
        "--patience", type=float, default=60, metavar="S", help="wait so long for a quiet machine"
    )
    parser.add_argument("--keep", type=Path, help="where to keep the run directories")
    parser.add_argument("--kept", type=Path, help="judge the runs of an earlier --keep")
    parser.add_argument("--machine", default="", help="what to say of the machine in the score")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {truth.script for truth in TRUTHS}:
        parser.error(f"no such report: {', '.join(sorted(unknown))}")
    chosen = [truth for truth in TRUTHS if not arguments.names or truth.script in arguments.names]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("CASES_DIR", scratch))
        out = arguments.keep or Path(scratch) / "runs"
        kept = arguments.kept
        rows = [*(examined(chosen, arguments, data, out) if kept is None else judged_again(chosen, kept))]
    lines, grades = [row for row, _, _ in rows], [(truth, grade) for _, truth, grade in rows]
    print(text := "\n".join(summary(grades)))
    if not arguments.names:
        write_score(arguments.machine, [HEAD, *lines, "", text])
    return int(any(grade.startswith(CONFIDENTLY_WRONG) for _, grade in grades))


def examined(
    chosen: list[Truth], arguments: argparse.Namespace, data: Path, out: Path
) -> Iterator[tuple[str, Truth, str]]:
    """Run each report so often; gives its row of the table, the truth and the grade."""
    print(HEAD, flush=True)
    for truth in chosen:
        why = no_disk_limit_here() if truth.disk_bytes_per_s else ""
        for run in range(1, arguments.runs + 1):
            said, cores = (None, 0.0)
            if not why:
                said, cores = quietly(truth, data, out / f"{truth.script}-{run}", arguments.patience)
            grade, row = line(truth, run, said, cores, why)
            print(row, flush=True)
            yield row, truth, grade


def judged_again(chosen: list[Truth], kept: Path) -> Iterator[tuple[str, Truth, str]]:
    """Analyse and judge the runs in `kept`; gives the same as `examined`. Who had the cores is not known."""
    print(HEAD, flush=True)
    for truth in chosen:
        for path in sorted(kept.glob(f"{truth.script}-*")):
            last = path / "again" if (path / "again").exists() else path / "first"
            grade, row = line(truth, int(path.name.rpartition("-")[2]), reported(last), None, "")
            print(row, flush=True)
            yield row, truth, grade


def quietly(truth: Truth, data: Path, out: Path, patience_s: float) -> tuple[Said, float]:
    """Run a report when the machine is quiet; with how many cores other programs had meanwhile.

    Where they had some, it is run once more, if the machine becomes quiet within `patience_s`.
    """
    wait_for_quiet(patience_s)
    said, cores = heard(truth, data, out / "first")
    if cores > BUSY_CORES and graded(truth, said)[0] != "right" and wait_for_quiet(patience_s):
        said, cores = heard(truth, data, out / "again")
    return said, cores


def heard(truth: Truth, data: Path, out: Path) -> tuple[Said, float]:
    """Run a report; with how many cores other programs had meanwhile."""
    others = OtherPrograms()
    return examine(truth, data, out), others.cores()


def wait_for_quiet(patience_s: float) -> bool:
    """Wait until other programs leave the cores alone; False after `patience_s` without that."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        others = OtherPrograms()
        time.sleep(3)
        if others.cores() <= BUSY_CORES:
            return True
    return False


def line(truth: Truth, run: int, said: Said | None, others: float | None, why: str) -> tuple[str, str]:
    """Return the grade, and the row of the table: `others` is how many cores other programs had meanwhile."""
    if said is None:
        return "not run", f"| {truth.script} | {run} | – | – | – | – | – | – | not run: {why} |"
    grade = ": ".join(filter(None, graded(truth, said)))
    if said.detail == "neighbour" and others is not None and others > BUSY_CORES:
        grade = BUSY  # so it was
    cause = f"{said.cause} ({said.detail})" if said.detail else said.cause
    stall = "–" if said.stall_share is None else f"{said.stall_share:.0%}"
    cells = [truth.script, run, cause, said.mechanism or "–", said.fix, stall, blamed(truth, said)]
    return grade, "| " + " | ".join(
        map(str, [*cells, "–" if others is None else f"{others:.1f}", grade])
    ) + " |"


def summary(grades: list[tuple[Truth, str]]) -> list[str]:
    """Return how many had each grade: of those given to us, and of our own."""
    lines = []
    for name, own in (("given", False), ("our own", True)):
        told = [grade for truth, grade in grades if (truth in OWN) == own]
        count = Counter(grade.partition(":")[0] for grade in told)
        parts = [f"{count[grade]} {grade}" for grade in (*GRADES, BUSY, "not run") if count[grade]]
        if told:
            nearly = sum(grade == "half: mechanism None" for grade in told)
            lines.append(f"- {name}: {', '.join(parts)}, of {len(told)}; {nearly} lack the mechanism only")
    return lines


def write_score(machine: str, table: list[str]) -> None:
    """Write the table, with date, commit and machine, to scores/."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, text=True).strip()
    here = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, torch {version('torch')}"
    path = HERE / "scores" / f"{today}-{commit}.md"
    path.parent.mkdir(exist_ok=True)
    head = f"# {today}, commit {commit}\n\n{machine + ': ' if machine else ''}{here}"
    path.write_text("\n".join([head, "", *table, ""]))
    print(f"written to {path}")


if __name__ == "__main__":
    raise SystemExit(main())
