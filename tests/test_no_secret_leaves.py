"""Forty planted credentials of twelve kinds: none is in any byte of a run, of its pages or of its exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from tests.forked import Program, verb

_BODY: Final = "Zq7xW9pK2mV5tB8nR4"


def _secret(number: int) -> str:
    """A text that stands nowhere else."""
    return f"{_BODY}{number:02d}cF6"


JWT: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0."
WANDB: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"

ARGUMENTS: Final = {  # by kind: what stands on the command line, with {} for the secret
    "option, a word of its own": (
        *(["--api-key", "{}"], ["--hf-token", "{}"], ["--password", "{}"], ["--client-secret", "{}"]),
    ),
    "option=value": (["--token={}"], ["--wandb-key={}"], ["--secretKey={}"], ["--openai_api_key={}"]),
    "short option": (["-p", "{}"], ["-u", "me:{}"], ["--pwd", "{}"]),
    "NAME=value": (
        ["WANDB_API_KEY={}"],
        ["trainer.logger.api_key={}"],
        ["-e", "MY_TOKEN={}"],
        ["++hub.token={}"],
    ),
    "URL's user": (["--data", "s3://AKIA:{}@bucket/p"], ["redis://:{}@host:1/0"], ["https://me:{}@h/x"]),
    "signed URL": (
        *(
            ["https://h/x?X-Amz-Signature={}&a=1"],
            ["https://a.blob/x?sv=1&sig={}"],
            ["gs://b/o?access_token={}#t"],
        ),
    ),
}
ERROR: Final = {  # in the text of the error that ends the script
    "S3 key": ("aws_secret_access_key={}", "cannot open s3://AKIA:{}@bucket/x"),
    "header": ("Authorization: Bearer {}", "Authorization: Basic {}", "X-Api-Key: {}"),
    "known token": ("hf_{}", "ghp_{}", "glpat-{}", "xoxb-{}"),
    "JSON web token": (JWT + "{}",),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",),
    "sentence": ("the token {} was refused", "api key '{}' is not valid", "password: {}"),
}
STAGES: Final = ("fetch token={}", "https://me:{}@h/x")
NAMES: Final = "password={}"
"""Name of a folder: in the paths of lines, and of the shards that are read."""

SCRIPT: Final = """
import sys, time, warnings
import torch, pipeprof
from torch.utils.data import DataLoader
STAGES = {stages!r}
TOKEN = "{in_source}"; password = "{in_source_too}"

class Data:
    def __len__(self): return 60
    def __getitem__(self, index):
        token = "{in_line}"; end = time.thread_time() + 0.004
        for name in STAGES:
            with pipeprof.stage(name): pass
        while time.thread_time() < end: secret = "{in_line}"
        return torch.zeros(2)

Data.__name__ = Data.__qualname__ = "Data(token={in_class})"
for batch in DataLoader(Data(), batch_size=2): pass
raise OSError({error!r})
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A traced run that has seen them all, with pages and exports, and the secrets."""
    numbers = iter(range(100))
    secrets: list[str] = []

    def fill(text: str) -> str:
        if "{}" not in text:
            return text
        secrets.append(_secret(next(numbers)))
        return text.replace("{}", secrets[-1])

    arguments = [fill(word) for kind in ARGUMENTS.values() for words in kind for word in words]
    error = "\n".join(fill(text) for kind in ERROR.values() for text in kind) + f"\nwandb key {WANDB}"
    stages = [fill(name) for name in STAGES]
    home = tmp_path_factory.mktemp("planted")
    folder = home / fill(NAMES)
    folder.mkdir()
    single = [fill("{}") for _ in range(4)]
    (folder / "train.py").write_text(
        SCRIPT.format(
            stages=stages,
            error=error,
            in_source=single[0],
            in_source_too=single[1],
            in_line=single[2],
            in_class=single[3],
        )
    )
    secrets.append(WANDB)
    script = str(folder / "train.py")
    run = home / "run"
    traced = Program(verb("trace", "--out", str(run), script, *arguments), home).finished()
    assert traced.returncode == 1, traced.stderr
    for form in ("perfetto", "speedscope", "collapsed", "csv", "parquet", "json"):
        done = Program(verb("export", str(run), "--to", form), home).finished()
        assert done.returncode == 0, done.stderr
    shown = Program(verb("report", "--json", str(run)), home).finished()
    (run / "answer.txt").write_text(shown.stdout + traced.stderr.partition("Traceback")[0])
    return run, secrets


def contents(run: Path) -> Iterator[tuple[str, bytes]]:
    """Give the bytes of each file below a run, and the values of its tables, which are compressed."""
    for path in sorted(run.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(run)), path.read_bytes()
        if path.suffix == ".parquet":
            yield f"values of {path.name}", json.dumps(pq.read_table(path).to_pydict(), default=str).encode()


def test_there_are_forty(planted: tuple[Path, list[str]]) -> None:
    _, secrets = planted
    assert len(set(secrets)) >= 40
    assert len({*ARGUMENTS, *ERROR}) >= 12


def test_none_is_in_any_byte_of_a_run(planted: tuple[Path, list[str]]) -> None:
    run, secrets = planted
    files = list(contents(run))
    assert {"run.json", "report.html", "trace.pftrace", "speedscope.json", "values of lines.parquet"} <= {
        name for name, _ in files
    }
    left = {(secret, name) for secret in secrets for name, content in files if secret.encode() in content}
    assert not left


def test_what_is_no_secret_stays(planted: tuple[Path, list[str]]) -> None:
    run, _ = planted
    meta = json.loads((run / "run.json").read_text())
    assert meta["command"][:2] == ["pipeprof", "trace"]
    assert "--api-key" in meta["command"] and "OSError" in meta["error"]
    assert "train.py" in (run / "report.html").read_text()
