"""Places of the runs of one traced program's processes, all in the directory of the program's run.

The first process that is not a rank of a job writes there itself, as it would alone; ranks write their parts
of the job, as under any launcher; all others write to `process-1`, `process-2`, …
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeprof.environment import EVERY_BATCH, LINES, STARTED, TRACE
from pipeprof.measure.session.job import here, own_directory
from pipeprof.record.directories import parts, process_directory
from pipeprof.record.schema import RUN_JSON


def place_of(out: Path) -> Path:
    """Choose, and for a further process make, the directory in which this process writes its run.

    Raises `TraceError` if it cannot be made, or is another job's.
    """
    of_a_rank = out.name.startswith("rank-") and (out / RUN_JSON).exists()  # which it has inherited
    if here() is not None and not of_a_rank:
        return own_directory(out, beside_run=True)
    if not (out / RUN_JSON).exists() and not parts(out):
        return out
    return process_directory(out)


def observe_children(
    out: Path, lines: bool, started: Path | None, every_batch: bool = False
) -> dict[str, str | None]:
    """Have the processes that this one starts from now on observe themselves, and write below `out`.

    They enter themselves in the file `started`. Returns the environment to `put_back`.
    """
    wanted = {TRACE: str(out.absolute()), LINES: str(int(lines)), STARTED: str(started or "")}
    wanted[EVERY_BATCH] = str(int(every_batch))
    if not _is_installed():
        path = os.getenv("PYTHONPATH")
        wanted["PYTHONPATH"] = os.pathsep.join([str(_hook_directory()), *([path] if path else [])])
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    return before


def put_back(environment: dict[str, str | None]) -> None:
    """Give environment variables the values that they had; None if there was none."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _hook_directory() -> Path:
    """Return the directory of the `sitecustomize` that is the start-up hook."""
    import pipeprof

    return (Path(pipeprof.__file__).parent / "startup/sitecustomize.py").parent


def _is_installed() -> bool:
    """Return whether each process of this interpreter runs the start-up hook anyway."""
    import site

    places = [*site.getsitepackages(), site.getusersitepackages()]
    return any(Path(place, "pipeprof_trace.pth").exists() for place in places)
