"""Defaults in pyproject.toml, completions of a shell, `pipeprof help`, and what waiting costs."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result

from pipeprof.cli import VERBS, _sign_of_life, cli
from pipeprof.errors import PipeprofError
from pipeprof.report.text.topics import TOPICS, topic_lines
from pipeprof.report.wording import reading
from pipeprof.vocabulary import mechanisms, owners
from tests.factory import MS, Plan, make_run


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory below a project, with a run that waits for most of the time."""
    place = tmp_path / "src"
    place.mkdir()
    monkeypatch.chdir(place)
    make_run(place / "runs" / "mine", Plan(batches=150, stages={"decode": 90 * MS}))
    return place


def test_a_project_sets_the_defaults_of_a_verb(here: Path) -> None:
    project = here.parent / "pyproject.toml"
    project.write_text('[tool.pipeprof.check]\nmax-stall = "5%"\n[tool.pipeprof.trace]\nlines = false\n')
    assert invoke("check").exit_code == 1, "the run waits for more than 5%"
    assert invoke("check", "--max-stall", "99%").exit_code == 0, "what is typed comes first"
    project.write_text("[tool.other]\nx = 1\n")
    assert "give a gate" in invoke("check").output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.pipeprof.check]\nmax-stal = "5%"\n', "did you mean max-stall"),
        ("[tool.pipeprof.chek]\nx = 1\n", "did you mean check"),
        ("[tool.pipeprof]\ncheck = 3\n", "is not a table"),
    ],
)
def test_a_default_of_nothing_is_one_clear_error(here: Path, text: str, said: str) -> None:
    (here / "pyproject.toml").write_text(text)
    result = invoke("check")
    assert isinstance(result.exception, PipeprofError) and said in str(result.exception)


def test_a_wrong_value_is_refused_as_if_it_were_typed(here: Path) -> None:
    (here / "pyproject.toml").write_text('[tool.pipeprof.check]\nmax-stall = "much"\n')
    result = invoke("check")
    assert result.exit_code == 2 and "much" in result.output


def test_a_file_that_is_no_toml_sets_nothing(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.pipeprof")
    result = invoke("report", "--json")
    assert result.exit_code == 0 and "sets no defaults" in result.stderr


def completed(words: list[str], incomplete: str) -> set[str]:
    shell = BashComplete(cli, {}, "pipeprof", "_PIPEPROF_COMPLETE")
    return {item.value for item in shell.get_completions(words, incomplete)}


def test_a_shell_completes_verbs_options_and_runs(here: Path) -> None:
    assert completed([], "tr") == {"trace"}
    assert "--max-stall" in completed(["check"], "--max")
    assert {"runs/mine"} <= completed(["report"], "runs/")
    assert "complete -o nosort -F" in BashComplete(cli, {}, "pipeprof", "_PIPEPROF_COMPLETE").source()


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_is_told_within_the_width(topic: str) -> None:
    result = invoke("help", topic)
    assert result.exit_code == 0 and len(result.output.splitlines()) > 5
    assert max(map(len, topic_lines(topic, 60))) <= 60


def test_topics_say_what_the_pages_say() -> None:
    said = {topic: " ".join(" ".join(topic_lines(topic, 80)).split()) for topic in TOPICS}
    assert reading.TRUST in said["prediction"] and reading.WHERE in said["verdict"]
    assert reading.RANKS in said["ranks"] and reading.BYTES in said["storage"]
    assert all(owner.how in said["verdict"] for owner in owners.OWNERS)
    assert all(each.meaning in said["mechanisms"] for each in mechanisms.MECHANISMS)


def test_help_of_a_verb_is_its_own_and_of_neither_an_error() -> None:
    assert invoke("help", "clean").output == invoke("clean", "--help").output.replace(
        "cli clean", "cli clean"
    )
    assert set(invoke("help").output.split()) >= set(TOPICS)
    result = invoke("help", "verdikt")
    assert isinstance(result.exception, PipeprofError) and "did you mean verdict" in str(result.exception)


def test_waiting_has_a_price_where_one_is_given(here: Path) -> None:
    told = " ".join(invoke("report", "--price", "2.5/h").output.split())
    assert "At 2.5 an hour, waiting for data costs" in told
    assert "At 2.5 an hour" in (here / "runs" / "mine" / "report.html").read_text().replace("\xa0", " ")
    assert "At 2.5 an hour" in invoke("report", "--markdown", "--price", "2.5").output
    assert "an hour" not in invoke("report", "--markdown").output
    assert invoke("report", "--price", "free").exit_code == 2


def test_every_verb_has_help() -> None:
    for verb in VERBS:
        with click.Context(cli) as context:
            command = cli.get_command(context, verb)
        assert command is not None and command.help


@pytest.mark.parametrize(
    ("words", "says"),
    [(["run", "nothing"], True), (["run", "--help"], False), (["trace", "-q", "x.py"], False)],
)
def test_a_verb_that_takes_seconds_says_so_at_once(
    words: list[str], says: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _sign_of_life(words)
    assert ("run: starting" in capsys.readouterr().err) == says
