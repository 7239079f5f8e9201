"""Which run a verb reads: a path, a number of the list, a name, or the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeprof.analyse.analysis import load
from pipeprof.cli import cli
from pipeprof.cli.runs import find_run, print_comparison
from pipeprof.errors import PipeprofError
from pipeprof.scenario.shipped import scenario_file, shipped
from pipeprof.simulate.forecast import Forecast
from tests.factory import Plan, make_run


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two runs in `runs/`, the newer of which is `second`."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("first", "second"), 1):
        directory = make_run(tmp_path / "runs" / name, Plan(batches=150))
        meta = json.loads((directory / "run.json").read_text())
        meta |= {"created_at": f"2026-11-2{number}T10:00:00+00:00", "name": f"{name}.py"}
        (directory / "run.json").write_text(json.dumps(meta))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [("newest", "second"), ("1", "second"), ("2", "first"), ("first", "first"), ("first.py", "first")],
)
def test_a_run_is_found_by_number_and_name(made: Path, given: str, found: str) -> None:
    assert find_run(given) == Path("runs", found)


def test_a_path_comes_before_a_number(made: Path) -> None:
    make_run(made / "1", Plan(batches=150))
    assert find_run("1") == Path("1")


@pytest.mark.parametrize("given", ["3", "third", "0"])
def test_a_run_that_is_not_there_is_one_clear_error(made: Path, given: str) -> None:
    with pytest.raises(PipeprofError, match="newest here: runs/second"):
        find_run(given)


def test_a_directory_without_a_run_is_told_the_newest(made: Path) -> None:
    (made / "empty").mkdir()
    with pytest.raises(PipeprofError, match="empty holds no run\nthe newest here is runs/second"):
        find_run("empty")


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [("rnu", "no such verb: rnu"), ("report --nosuch", "--nosuch")])
def test_errors_have_one_form(tmp_path: Path, words: str, said: str) -> None:
    command = [sys.executable, "-m", "pipeprof", *words.split()]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    first, second = told.stderr.splitlines()
    assert first.startswith("pipeprof: ") and said in first
    assert second.startswith("`pipeprof") and second.endswith("--help` shows how")
    assert (told.returncode, told.stdout) == (2, "")


def test_a_directory_of_runs_is_no_run(made: Path) -> None:
    with pytest.raises(PipeprofError, match="holds 2 runs"):
        find_run("runs")


def test_without_any_run_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipeprofError, match="pipeprof trace"):
        find_run("newest")


def test_verbs_read_the_newest_and_say_which_that_is(made: Path) -> None:
    result = invoke("report", "--json")
    assert result.exit_code == 0 and "runs/second, the newest run" in result.stderr
    assert json.loads(result.stdout)["status"] == "complete"
    assert invoke("check", "--max-stall", "100%").exit_code == 0
    compared = invoke("compare")
    assert "runs/second against runs/first" in compared.stdout


def test_the_list_says_what_was_reported(made: Path) -> None:
    before, *_ = json.loads(invoke("list", "--json").stdout)
    assert (before["cause"], before["stall_share"]) == (None, None)
    answer = json.loads(invoke("report", "1", "--json").stdout)
    assert invoke("report", "1").exit_code == 0
    after, *_ = json.loads(invoke("list", "--json").stdout)
    assert after["cause"] == answer["verdict"]["cause"]
    assert after["stall_share"] == answer["verdict"]["stall_share"]
    assert answer["verdict"]["cause"] in invoke("list").stdout


def test_a_page_is_written_where_none_is_newer_than_the_record(made: Path) -> None:
    assert invoke("report", "second").exit_code == 0
    page = made / "runs" / "second" / "report.html"
    first = page.stat().st_mtime_ns
    assert invoke("report", "second").exit_code == 0
    assert page.stat().st_mtime_ns == first
    os.utime(made / "runs" / "second" / "run.json", ns=(first + 10**9, first + 10**9))
    assert invoke("report", "second").exit_code == 0
    assert page.stat().st_mtime_ns > first


def test_markdown_has_the_verdict_of_the_terminal(made: Path) -> None:
    text = invoke("report", "1", "--markdown").stdout
    sentence = json.loads(invoke("report", "1", "--json").stdout)["verdict"]["sentence"]
    assert text.startswith("### pipeprof: ") and text.split("pipeprof: ")[1][:30] in sentence
    assert "| where each step's time went | each step | of time |" in text


def test_shipped_scenarios_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = shipped()
    assert scenario_file(None) == known["quickstart"]
    for given in ("hdd_4workers", "hdd_4workers.yaml", "scenarios/hdd_4workers.yaml"):
        assert scenario_file(given) == known["hdd_4workers"]
    assert scenario_file("lesson/1_hdd") == known["lesson/1_hdd"]
    Path("hdd_4workers").write_text("mine")
    assert scenario_file("hdd_4workers") == Path("hdd_4workers")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "did you mean run?"),
        (["train.py"], "pipeprof trace train.py"),
        (["x.yaml"], "pipeprof run x.yaml"),
        (["run", "train.py"], "pipeprof trace train.py"),
        (["trace", "x.yaml"], "pipeprof run x.yaml"),
        (["run", "hdd_4workerz"], "did you mean hdd_4workers?"),
    ],
)
def test_what_was_meant_is_suggested(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)


def test_a_run_is_never_written_into_another(made: Path) -> None:
    (made / "train.py").write_text("")
    for verb, what in (("run", "quickstart"), ("trace", "train.py")):
        result = invoke(verb, "--out", "runs/first", what)
        assert isinstance(result.exception, PipeprofError)
        assert "already holds a run" in str(result.exception)


def test_each_shipped_scenario_is_listed_with_what_it_teaches() -> None:
    listed = json.loads(invoke("scenarios", "--json").stdout)
    assert {entry["name"] for entry in listed} == set(shipped())
    assert all(entry["about"] for entry in listed)


@pytest.mark.parametrize("name", ["7", "newest", "a/b", "", ".."])
def test_a_name_that_means_something_else_is_refused(made: Path, name: str) -> None:
    result = invoke("run", "quickstart", "--name", name)
    assert result.exit_code == 2 and "is not a valid run name" in result.output


def test_a_matrix_has_no_one_name(made: Path) -> None:
    result = invoke("run", "tiers_by_workers", "--name", "all")
    assert isinstance(result.exception, PipeprofError)
    assert "a matrix makes several" in str(result.exception)


def test_the_fixes_are_in_the_answer_for_machines(made: Path) -> None:
    answer = json.loads(invoke("report", "1", "--json").stdout)
    forecast = Forecast(load("runs/second"))
    assert [one["title"] for one in answer["fixes"]] == [one.fix.title for one in forecast.fixes]
    advised = {one.fix.title for one in forecast.advice}
    assert {one["title"] for one in answer["fixes"] if one["advised"]} == advised
    assert answer["fixes"][0]["throughput_samples_per_s"]["value"] > 0
    assert answer["verdict"]["hot"] == []


def of_command(directory: Path, *command: str, at: int) -> Path:
    """Make a traced run of a command, whose last word is the script."""
    make_run(directory, Plan(batches=150))
    meta = json.loads((directory / "run.json").read_text())
    meta |= {"command": list(command), "script_words": 1, "kind": "trace", "scenario": None}
    meta |= {"created_at": f"2026-11-2{at}T10:00:00+00:00"}
    (directory / "run.json").write_text(json.dumps(meta))
    return directory


def test_a_run_that_tried_a_change_is_followed_by_how_to_compare_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    before = of_command(runs / "before", "pipeprof", "trace", "train.py", at=1)
    of_command(runs / "other", "pipeprof", "trace", "eval.py", at=2)
    tried = ("pipeprof", "trace", "--set", "loader.num_workers=4", "train.py")
    of_command(runs / "twice", "pipeprof", "trace", "--set=loader.num_workers=8", "train.py", at=3)
    now = of_command(runs / "now", *tried, at=4)
    print_comparison(now)
    assert capsys.readouterr().err == "Compare: pipeprof compare runs/before runs/now\n"
    print_comparison(before)  # it tried nothing
    assert capsys.readouterr().err == ""


def test_a_change_without_a_run_before_it_is_compared_with_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(of_command(tmp_path / "only", "pipeprof", "trace", "--try", "cached", "train.py", at=1))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("word", ["schema", "--help"])
def test_a_reader_that_goes_is_no_failed_gate(tmp_path: Path, word: str) -> None:
    """Exit code 1 is that of a gate; an end of the pipe has SIGPIPE's."""
    program = f"from pipeprof.cli import main; import sys; sys.argv = ['pipeprof', '{word}']; main()"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141
