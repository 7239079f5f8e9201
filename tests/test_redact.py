"""Secrets are struck out, and what only looks like one stays."""

from __future__ import annotations

import json

import pytest

from pipeprof.redact import STRUCK, redact, redact_all, redact_command, redact_source

SECRET = "S3cr3tValue0123456789abcdef"

TEXTS = [
    f"https://user:{SECRET}@host/path",
    f"s3://AKIA:{SECRET}@bucket/p",
    f"cannot open s3://AKIA:{SECRET}@bucket/x",
    f"https://bucket/x?X-Amz-Signature={SECRET}&x=1",
    f"https://a.blob/x?sv=1&sig={SECRET}",
    f"gs://b/o?access_token={SECRET}#t",
    f"redis://:{SECRET}@localhost:6379/0",
    f"WANDB_API_KEY={SECRET}",
    f"export AWS_SECRET_ACCESS_KEY='{SECRET}'",
    f'{{"api_key": "{SECRET}"}}',
    f"{{'hf_token': '{SECRET}'}}",
    f"password: {SECRET}",
    f"DefaultEndpointsProtocol=https;AccountKey={SECRET};x",
    f"OSError: aws_secret_access_key={SECRET}",
    f"the token {SECRET} was refused",
    f"api key '{SECRET}' is not valid",
    "wandb: cannot log in with 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    f"Authorization: Bearer {SECRET}",
    f"Authorization: Basic {SECRET}",
    f"model.hub.token={SECRET}",
    f"connection_string={SECRET}",
    f"hf_{SECRET}",
    f"ghp_{SECRET}",
    f"github_pat_{SECRET}",
    f"glpat-{SECRET}",
    f"sk-{SECRET}",
    "AKIAIOSFODNN7EXAMPLE",
    f"xoxb-{SECRET}",
    f"AIza{SECRET}0123456789",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
]
COMMANDS = [
    [f"--wandb-key={SECRET}"],
    ["--hf-token", SECRET],
    ["--password", SECRET, "--epochs", "3"],
    ["--data", f"s3://AKIA:{SECRET}@bucket/p"],
    [f"trainer.logger.api_key={SECRET}"],
    ["--auth", SECRET],
    [f"--openai_api_key={SECRET}"],
    ["--sas", SECRET],
    [f"--url=https://x/y?token={SECRET}"],
    [f"--secretKey={SECRET}"],
    ["-e", f"MY_TOKEN={SECRET}"],
    [f"++wandb.key={SECRET}"],
    ["--client-secret", SECRET],
    ["-p", SECRET],
    ["-u", f"me:{SECRET}"],
]
HARMLESS = [
    "KeyError: 'label'",
    "tokenizer=bert-base",
    "max_tokens: 512",
    "lr=0.1 epochs=3",
    "the path /data/keys/train.csv cannot be read: no such file",
    "https://host/path?epoch=3",
    "abfs://container@account.dfs.core.windows.net/x",
    "step: 12, loss: 0.5",
    "http://host:8080/metrics",
    "the token 12 is no word of the vocabulary",
    "RuntimeError: shape: (3, 4)",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_text_is_struck_out(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown and "AKIAIOSFODNN7EXAMPLE" not in shown and "9f86d08" not in shown
    assert STRUCK in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_secret_on_the_command_line_is_struck_out(command: list[str]) -> None:
    shown = redact_command(["train.py", *command])
    assert SECRET not in json.dumps(shown)
    assert len(shown) == len(command) + 1


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_a_command_without_secrets_stays() -> None:
    command = ["train.py", "--tokenizer", "gpt2", "--lr=0.1", "--token-count", "5", "--data", "/data/x"]
    assert redact_command(command) == command


def test_a_files_name_stays_below_a_folder_that_is_struck_out() -> None:
    assert redact(f"/home/me/token={SECRET}/train.py") == "/home/me/token=***/train.py"


def test_a_port_and_a_path_are_no_passwords() -> None:
    for command in (["-p", "8080"], ["-p", "/data/x"], ["-u", "main.py"], ["-p", "-1"]):
        assert redact_command(command) == command


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f'token = "{SECRET}"', 'token = "***"'),
        (f'config["api_key"] = "{SECRET}"', 'config["api_key"] = "***"'),
        (f'load("hf_{SECRET}")', 'load("***")'),
        ('key = sample["key"]', 'key = sample["key"]'),
        ("token = tokens[index]", "token = tokens[index]"),
    ],
)
def test_source_text_loses_its_literals_alone(line: str, shown: str) -> None:
    assert redact_source(line) == shown


def test_an_option_without_its_value_hides_no_other_option() -> None:
    assert redact_command(["--token", "--epochs", "3"]) == ["--token", "--epochs", "3"]


def test_data_are_redacted_however_deep() -> None:
    data = {"a": [{"token": SECRET, "n": 1}], "url": f"https://u:{SECRET}@h/", "token": None, "key": 5}
    shown = redact_all(data)
    assert SECRET not in json.dumps(shown)
    assert shown["a"][0]["n"] == 1 and shown["key"] == 5 and shown["token"] is None


@pytest.mark.parametrize("text", ["a=" * 20_000, "a:b" * 10_000, "x_" * 20_000 + "=1", "a/b:" * 10_000])
def test_a_long_text_of_pairs_is_read_once(text: str) -> None:
    """As an error's text may be, or a list of places: no depth and no time that grows with its square."""
    assert redact(text) == text
    assert redact(f"{text} token={SECRET}") == f"{text} token={STRUCK}"
    assert redact_source(text) == text


def test_a_long_name_is_one_of_a_secret_by_its_end() -> None:
    assert redact(f"{'part_' * 1_000}token={SECRET}") == f"{'part_' * 1_000}token={STRUCK}"
