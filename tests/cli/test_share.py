"""Runs given away: `--share` replaces names of people and machines, `--no-command` drops arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeprof.record.reader import load
from pipeprof.report.sharing import Sharing
from tests.factory import MS, Plan, Sampled, make_run
from tests.forked import Program, verb

NAMES = ("josephine", "node17", "node17.example.org", "/home/josephine")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    stack = (("/home/josephine/job/train.py", 12, "<module>"), ("/home/josephine/job/data.py", 40, "load"))
    plan = Plan(
        batches=40,
        workers=1,
        stages={"read": MS, "decode": 60 * MS, "stage:josephine's": 9 * MS, "collate": MS},
        lines=(Sampled("decode", stack, 900 * MS, worker=0),),
    )
    return make_run(
        tmp_path / "run",
        plan,
        name="/home/josephine/job/train.py",
        command=["pipeprof", "trace", "/home/josephine/job/train.py", "--user=josephine"],
        host="node17.example.org",
        warnings=["node17 has no GPU", "/home/josephine/x is on NFS"],
        error="OSError: /home/josephine/x: no such file",
    )


def contents(directory: Path) -> str:
    return "".join(
        path.read_text(errors="replace") for path in sorted(directory.rglob("*")) if path.is_file()
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_in_what_is_read(name: str, run: Path) -> None:
    shared = Sharing().open(run)
    texts = json.dumps(shared.meta.as_json())
    texts += "".join(str(shared.table(table).to_pydict()) for table in ("lines", "stages", "spans", "events"))
    texts += "".join(str(piece.to_pydict()) for piece in shared.pieces("lines", ("stage", "stack")))
    assert name not in texts
    assert name in json.dumps(load(run).meta.as_json()) + str(load(run).table("lines").to_pydict())
    assert shared.meta.host in ("host1", "host2")
    assert "~/job/data.py" in texts


def test_one_name_has_one_replacement_in_all_runs(tmp_path: Path) -> None:
    plan = Plan(batches=3, warmup=0)
    hosts = ["alpha.example", "beta.example", "alpha.example"]
    runs = [make_run(tmp_path / str(number), plan, host=host) for number, host in enumerate(hosts)]
    sharing = Sharing()
    first, second, third = (sharing.open(run).meta.host for run in runs)
    assert first == third != second


def test_the_page_and_the_exports_hold_no_name(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page" / "report.html"
    page.parent.mkdir()
    done = Program(verb("report", "--share", "--html", str(page), str(run)), tmp_path).finished()
    assert done.returncode == 0, done.stderr
    for form in ("json", "speedscope"):
        out = page.parent / form
        exported = Program(verb("export", "--share", "--to", form, "--out", str(out), str(run)), tmp_path)
        assert exported.finished().returncode == 0
    shown = done.stdout + contents(page.parent)
    assert not [name for name in NAMES if name in shown]
    assert "~/job/train.py" in shown


def test_a_run_may_leave_its_command_out(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys\nassert sys.argv[1:] == ['--key-of-the-safe', '1234']\n")
    traced = ["trace", "-q", "--no-command", "--out", "run", "train.py", "--key-of-the-safe", "1234"]
    assert Program(verb(*traced), tmp_path).finished().returncode == 0
    assert load(tmp_path / "run").meta.command == ("(left out)",)
    assert "safe" not in contents(tmp_path / "run")
