"""The question at the end of a trace: who is asked, and what counts as yes."""

from __future__ import annotations

import io
import os
import pty
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeprof.cli.measure.storage_question import wants_probe
from tests.factory import MS, Plan, make_run

READS = Plan(stages={"read": 200 * MS, "decode": MS})
FILE = {"reading": {"files": [{"path": "/data/a.bin", "size_bytes": 4096, "how": "read"}]}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Asked(NamedTuple):
    yes: bool
    question: str


def asked(monkeypatch: pytest.MonkeyPatch, directory: Path, typed: bytes, patience_s: float = 5) -> Asked:
    """Ask at a terminal where `typed` was typed; standard error is a terminal too."""
    main, other = pty.openpty()
    try:
        os.write(main, typed)
        with open(other, encoding="utf-8") as keyboard, monkeypatch.context() as patched:  # noqa: PTH123
            patched.setattr(sys, "stdin", keyboard)
            patched.setattr(sys, "stderr", screen := Terminal())
            return Asked(wants_probe(directory, patience_s), screen.getvalue())
    finally:
        os.close(main)


def made(tmp_path: Path, plan: Plan = READS, **meta: Any) -> Path:
    return make_run(tmp_path / "run", plan, **{**FILE, "storage": {"tier": None}, **meta})


@pytest.mark.parametrize(
    ("typed", "yes"), [(b"y\n", True), (b"YES\n", True), (b"\n", False), (b"no\n", False)]
)
def test_only_yes_is_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, yes: bool) -> None:
    answer = asked(monkeypatch, made(tmp_path), typed)
    assert answer.yes is yes
    assert "[y/N]" in answer.question


def test_nobody_at_the_terminal_means_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not asked(monkeypatch, made(tmp_path), b"", patience_s=0).yes


@pytest.mark.parametrize(
    ("plan", "meta"),
    [
        (Plan(stages={"decode": 200 * MS}), {}),
        (READS, {"reading": {"files": []}}),
        (READS, {"storage": {"tier": "ram"}}),
    ],
    ids=["no storage is waited for", "no file is known", "it is memory"],
)
def test_nothing_is_asked_where_no_answer_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, meta: dict[str, Any]
) -> None:
    assert asked(monkeypatch, made(tmp_path, plan, **meta), b"y\n") == (False, "")


def test_nothing_is_asked_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO("y\n"), None):
        monkeypatch.setattr(sys, "stdin", stream)
        assert not wants_probe(made(tmp_path / str(stream is None)))
