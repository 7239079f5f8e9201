"""The verbs that read runs: what they import, what they write, what they say of bad use."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeprof.analyse.analysis import Analysis
from pipeprof.cli import cli
from pipeprof.errors import PipeprofError
from pipeprof.record.choice import read_choice
from pipeprof.report.page import html
from pipeprof.simulate.forecast import Forecast
from tests.factory import Plan, make_run
from tests.forked import Program
from tests.timing import Timing

MEASURING = {"torch", "torchvision", "PIL", "psutil", "pynvml"}
"""What reading a run never needs, and measuring one does."""

LOADED = """
import json, sys
from pipeprof.cli import cli
for arguments in json.loads(sys.argv[1]):
    try:
        cli(arguments, standalone_mode=True)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    print()
    found = {name.partition(".")[0] for name in sys.modules} | {"pipeprof.simulate"} & {*sys.modules}
    print("LOADED", *sorted(found))
"""


def loaded_by(*commands: list[str]) -> list[set[str]]:
    """What one interpreter has loaded after each of these commands, run one after the other."""
    command = [sys.executable, "-c", LOADED, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert len(found) == len(commands)
    return found


READING = [
    ["open", "--help"],
    ["list", "."],
    ["check", "RUN", "--max-stall", "100%"],
    ["export", "RUN", "--to", "csv", "--out", "OUT"],
    ["compare", "RUN", "RUN"],
    ["report", "RUN", "--json"],
    ["report", "RUN", "--html", "PAGE"],
]


@pytest.mark.slow
def test_reading_never_imports_torch(stalled: Analysis, tmp_path: Path) -> None:
    words = {"RUN": str(stalled.run.directory), "OUT": str(tmp_path / "out"), "PAGE": str(tmp_path / "page")}
    commands = [[words.get(one, one) for one in command] for command in READING]
    for command, loaded in zip(commands, loaded_by(*commands), strict=True):
        assert not loaded & MEASURING, command
        assert "pandas" not in loaded, f"it costs up to a second of CPU: {command}"
        if command[0] in ("list", "check", "export"):
            assert "pipeprof.simulate" not in loaded, f"nothing of it is predicted: {command}"
        if "--html" not in command:
            assert not loaded & {"altair", "vl_convert", "jinja2"}, (
                f"the chart library is for pages: {command}"
            )


def test_a_report_of_one_loader(tmp_path: Path) -> None:
    run = str(make_run(tmp_path / "run", Plan(batches=40), after=Plan(batches=30, workers=1, warmup=0)))
    whole, val = (
        json.loads(CliRunner().invoke(cli, ["report", run, "--json", *more]).output)
        for more in ([], ["--loader", "val"])
    )
    assert (val["loader"]["id"], val["loader"]["name"], val["steps"]) == (1, "val", 30)
    assert whole["steps"] == 65 and len(whole["other_loaders"]) == 1
    unknown = CliRunner().invoke(cli, ["report", run, "--loader", "test"])
    assert isinstance(unknown.exception, PipeprofError)
    assert str(unknown.exception).endswith("it has train, val")
    chosen = read_choice(Path(run))
    CliRunner().invoke(cli, ["report", run, "--loader", "val"], catch_exceptions=False)
    assert [path.name for path in Path(run).glob("*.html")] == ["report-loader-1.html"]
    assert read_choice(Path(run)) == chosen, "what is chosen for one loader is not the run's choice"


class Asked:
    """Refuses to find what measuring alone imports, and keeps who was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in MEASURING:
            self.names.add(name)
            raise ModuleNotFoundError(name)


def afresh(arguments: list[str]) -> None:
    """The command in a process that has imported nothing of pipeprof; what measures cannot be imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"pipeprof", *MEASURING}]:
        del sys.modules[name]
    asked = Asked()
    sys.meta_path.insert(0, asked)  # type: ignore[arg-type]
    from pipeprof.cli import cli as door

    door(arguments, standalone_mode=False)
    assert "pipeprof.simulate.forecast" in sys.modules, "it was really imported again"
    print("ASKED", *sorted(asked.names), file=sys.stderr)


def test_a_report_for_machines_imports_nothing_for_measuring(stalled: Analysis, tmp_path: Path) -> None:
    done = Program(lambda: afresh(["report", str(stalled.run.directory), "--json"]), tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == Forecast(stalled).verdict.as_dict()["verdict"]
    assert done.stderr.split() == ["ASKED"]


def test_help_starts_light() -> None:
    commands = [["--help"], ["report", "--help"], ["compare", "--help"], ["check", "--help"]]
    for command, loaded in zip(commands, loaded_by(*commands), strict=True):
        assert not loaded & {"torch", "pyarrow", "numpy", "altair", "rich", "jinja2"}, command


def test_report_rebuilds_the_page_beside_the_trace(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Plan(batches=40))
    result = CliRunner().invoke(cli, ["report", str(directory)])
    assert result.exit_code == 0, result.output
    assert (directory / "report.html").stat().st_size > 100_000
    assert str(directory / "report.html") in result.output


def test_report_json_is_the_dictionary_of_the_answer(stalled: Analysis) -> None:
    result = CliRunner().invoke(cli, ["report", str(stalled.run.directory), "--json"])
    said = json.loads(result.output)
    assert said["schema"] == 1 and said["verdict"]["fix"] == stalled.verdict.fix
    assert sum(said["ledger_ns"].values()) == said["wall_ns"]


def test_where_the_page_cannot_be_written_there_is_one_clear_error(stalled: Analysis, tmp_path: Path) -> None:
    target = tmp_path / "missing" / "report.html"
    result = CliRunner().invoke(cli, ["report", str(stalled.run.directory), "--html", str(target)])
    assert isinstance(result.exception, PipeprofError)
    assert "cannot write" in str(result.exception)
    assert not target.parent.exists()


def test_list_shows_the_runs_and_their_state(made: Path, odd: dict[str, Analysis]) -> None:
    entries = json.loads(CliRunner().invoke(cli, ["list", str(made), "--json"]).output)
    states = {Path(entry["directory"]).name: entry["status"] for entry in entries}
    assert states["torn"] == "partial" and states["failed"] == "failed" and states["hostile"] == "complete"
    text = CliRunner().invoke(cli, ["list", str(made)]).output
    assert "partial" in text and "\x1b" not in text


def test_list_of_nothing_and_of_no_directory(tmp_path: Path) -> None:
    assert "no runs in" in CliRunner().invoke(cli, ["list", str(tmp_path)]).output
    result = CliRunner().invoke(cli, ["list", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, PipeprofError)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    assert "unreadable" in CliRunner().invoke(cli, ["list", str(tmp_path)]).output


def test_open_writes_the_page_first_and_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    directory = make_run(tmp_path / "run", Plan(batches=30))
    assert CliRunner().invoke(cli, ["open", str(directory)]).exit_code == 0
    page = directory / "report.html"
    assert opened == [page.resolve().as_uri()] and page.is_file()
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    result = CliRunner().invoke(cli, ["open", str(directory)])
    assert result.exit_code == 0 and page.resolve().as_uri() in result.output and "scp" in result.output


def test_an_old_run_is_not_rebuilt_by_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(tmp_path / "run", Plan(batches=30))
    (directory / "report.html").write_text("kept")
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setattr(html, "write", None)
    assert CliRunner().invoke(cli, ["open", str(directory)]).exit_code == 0


MOST_HELP_S = 0.4
"""CPU time that a verb's help may take to start (issue 2)."""


def least_cpu_s(*arguments: str) -> float:
    """CPU time of the console script as it is installed; the best of three, so that a busy machine fails
    nobody. `{}` in the arguments is the number of the attempt."""
    script = Path(sys.executable).with_name("pipeprof")
    spent_s = []
    for attempt in range(3):
        command = [str(script), *(argument.format(attempt) for argument in arguments)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout or "export" in arguments
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent_s)


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"]])
def test_help_takes_little_cpu_time(arguments: list[str]) -> None:
    assert least_cpu_s(*arguments) < MOST_HELP_S
    assert "torch" not in loaded_by(arguments)[0]


MOST_READING_S = 1.0
"""CPU time that checking or exporting a run of 2,000 batches may take: measured were 0.5 and 0.6 s."""


@pytest.mark.slow
def test_reading_a_long_run_takes_little_cpu_time(tmp_path: Path, timing: Timing) -> None:
    run = str(make_run(tmp_path / "run", Plan(batches=2000, jitter=0.2)))
    with timing.compared():
        assert least_cpu_s("check", run, "--max-stall", "100%") < MOST_READING_S
        out = str(tmp_path / "csv-{}")
        assert least_cpu_s("export", run, "--to", "csv", "--out", out) < MOST_READING_S
