"""Size, CPU, memory and readiness of the report: `python tests/benchmarks/report.py [BATCHES ...]`.

Each figure is taken in a process of its own. `build` is from an analysed run to the page on disk, `command`
all of `pipeprof report RUN` with the interpreter's start, the analysis and the predictions.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.factory import MS, Plan, make_run

BUDGETS = {2_000: "1.5 MB, 3 s of CPU, interactive in 1.5 s", 1_000_000: "3 MB, 15 s of CPU, 1.5 GiB"}

CHILD = """
import json, resource, sys, time
from pathlib import Path
run, page = Path(sys.argv[1]), Path(sys.argv[2])
from pipeprof.cli.runs import read
answer = read(run)
analysed = time.process_time()
from pipeprof.report.page import html
from pipeprof.report.text import terminal
from pipeprof.simulate.forecast import Forecast
answer = Forecast(answer)
html.write(answer, page)
built = time.process_time()
terminal.show(answer, str(page), open("/dev/null", "w"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "analysis_s": analysed, "build_s": built - analysed, "command_s": time.process_time(),
    "peak_bytes": peak, "page_bytes": page.stat().st_size,
}))
"""


def measure(run: Path, page: Path) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(run), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def interactive_s(page: Path) -> float | None:
    """Seconds from opening the file until the first screen and the timeline are drawn, best of five."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from tests.report.page.test_browser import FLAGS

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        times = []
        for _ in range(5):
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
            times.append(tab.evaluate("performance.getEntriesByName('interactive')[0].startTime") / 1e3)
            tab.close()
        browser.close()
    return min(times)


def plan(batches: int) -> Plan:
    stages = {"read": 30 * MS, "decode": 110 * MS, "transform:RandomResizedCrop": 20 * MS, "collate": 4 * MS}
    every = 1 if batches <= 5_000 else 5_000
    return Plan(batches=batches, workers=8, stages=stages, jitter=0.2, spans_every=every)


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as room:
        for batches in sizes:
            run, page = make_run(Path(room) / f"{batches}", plan(batches)), Path(room) / f"{batches}.html"
            best = min((measure(run, page) for _ in range(3)), key=lambda one: one["command_s"])
            report(batches, best, interactive_s(page))


def report(batches: int, best: dict[str, float], ready: float | None) -> None:
    print(f"{batches:,} batches, 8 workers (budget: {BUDGETS.get(batches, 'none')})")
    print(f"  page {best['page_bytes'] / 1e6:.2f} MB, at most {best['peak_bytes'] / 2**30:.2f} GiB of memory")
    print(f"  CPU: build {best['build_s']:.1f} s")
    print(f"  CPU: analysis and predictions {best['analysis_s']:.1f} s, command {best['command_s']:.1f} s")
    print(f"  interactive after {'not observed' if ready is None else f'{ready:.2f} s'}", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(BUDGETS))
