"""Remote places in scenarios: what a URL implies, and what cannot be meant of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeprof.errors import ScenarioError
from pipeprof.scenario import Scenario, load, with_values


def written(tmp_path: Path, text: str, *overrides: str) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return load(path, overrides)[0]


def test_a_remote_place_is_of_the_tier_network(tmp_path: Path) -> None:
    storage = written(tmp_path, "storage: {path: s3://bucket/train, options: {anon: true}}").storage
    assert (storage.tier, storage.path, storage.options) == ("network", "s3://bucket/train", {"anon": True})


def test_an_override_may_name_it(tmp_path: Path) -> None:
    assert written(tmp_path, "name: x", "storage.path=s3://bucket").storage.tier == "network"


def test_ram_is_filled_from_it(tmp_path: Path) -> None:
    assert written(tmp_path, "storage: {path: s3://bucket, tier: ram}").storage.tier == "ram"


def test_own_remote_images_say_where_the_storage_is(tmp_path: Path) -> None:
    found = written(tmp_path, "data: {format: image_folder, path: s3://bucket/images}")
    assert found.storage.path == "s3://bucket/images"
    assert found.storage.tier == "network"


def test_a_file_url_is_a_directory_of_this_machine(tmp_path: Path) -> None:
    storage = written(tmp_path, f"storage: {{path: 'file://{tmp_path}', tier: nvme}}").storage
    assert (storage.path, storage.tier) == (str(tmp_path), "nvme")


def test_a_resolved_scenario_reads_back(tmp_path: Path) -> None:
    found = written(tmp_path, "storage: {path: s3://bucket/train, options: {anon: true}}")
    assert with_values(found, {"run.steps": 30}).storage == found.storage


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: {path: s3://bucket, tier: ssd}", "storage.tier: is ssd, and s3://bucket is remote"),
        ("storage: {path: s3://bucket, cache: warm}", "storage.cache: no page cache"),
        ("storage: {path: s3://bucket, cache_bytes: 5}", "storage.cache_bytes: no page cache"),
        ("storage: {path: s3://bucket, options: {secret: x}}", "storage.options.secret: is a credential"),
        ("storage: {path: s3://bucket, options: {secret: x}}", "give it as AWS_ACCESS_KEY_ID"),
        ("storage: {path: 's3://a:b@bucket'}", "storage.path: holds credentials"),
        ("storage: {path: 'simplecache::s3://bucket'}", "is a chain"),
        ("storage: {path: s3://bucket, device: sata-ssd}", "nothing is emulated there"),
        ("storage: {options: {anon: true}}", "storage.options: are for a remote storage.path"),
        ("storage: {path: memory://x}\nloader: {start_method: spawn}", "workers that spawn do not see it"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        written(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        "account_key: SECRET",
        "connection_string: AccountName=a;AccountKey=SECRET",
        "client_secret: SECRET",
        "sas_token: SECRET",
        "token: {refresh_token: SECRET}",
        "password: 12345",
        "client_kwargs: {aws_secret_access_key: SECRET}",
        "client_kwargs: {headers: {Authorization: Bearer SECRET}}",
        "client_kwargs: {hosts: [{accountKey: SECRET}]}",
        "endpoint_url: 'http://me:SECRET@localhost:9000'",
        "config_kwargs: {proxies: {https: 'http://me:SECRET@proxy'}}",
    ],
)
def test_credentials_are_refused_however_deep_they_stand(tmp_path: Path, options: str) -> None:
    with pytest.raises(ScenarioError, match=r"storage\.options\.\S+: is a credential") as caught:
        written(tmp_path, f"storage: {{path: 'abfs://box@me.dfs.core.windows.net', options: {{{options}}}}}")
    assert "AZURE_STORAGE_ACCOUNT_KEY" in str(caught.value)
    assert "~/.config/fsspec" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_credentials_that_an_override_replaces_are_still_in_the_file_that_a_run_keeps(tmp_path: Path) -> None:
    text = "storage: {path: s3://bucket, options: {client_kwargs: {aws_secret_access_key: SECRET}}}"
    with pytest.raises(ScenarioError, match=r"aws_secret_access_key is a credential, .* keeps this file"):
        written(tmp_path, text, "storage.options={anon: true}")


@pytest.mark.parametrize(
    "url",
    [
        "https://me.blob.core.windows.net/box?sv=2024&sr=c&sig=SECRET",
        "https://bucket.s3.amazonaws.com/train?X-Amz-Signature=SECRET",
        "https://host/train?access_token=SECRET",
        "https://SECRET@host/train",
        "simplecache::https://me:SECRET@host/train",
        "abfs://me:SECRET@me.dfs.core.windows.net",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    for key in ("storage", "data"):
        with pytest.raises(ScenarioError, match="holds credentials") as caught:
            written(tmp_path, f"{key}: {{path: '{url}'}}")
        assert "~/.config/fsspec" in str(caught.value)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "storage",
    [
        "{path: s3://bucket, options: {anon: true, endpoint_url: 'http://localhost:9000/x?region=eu'}}",
        "{path: s3://bucket, options: {profile: mine, config_kwargs: {signature_version: s3v4}}}",
        "{path: s3://bucket, options: {client_kwargs: {region_name: eu, keepalive_timeout: 5}}}",
        "{path: s3://bucket, options: {key: null, requester_pays: true}}",
        "{path: gs://bucket, options: {token: anon}}",
        "{path: 'abfs://box@me.dfs.core.windows.net/train', options: {account_name: me}}",
        "{path: 'https://host/train?version=3'}",
    ],
)
def test_options_that_are_no_credentials_pass(tmp_path: Path, storage: str) -> None:
    assert written(tmp_path, f"storage: {storage}").storage.tier == "network"


def test_own_remote_images_beside_a_local_storage(tmp_path: Path) -> None:
    text = f"data: {{format: image_folder, path: s3://bucket}}\nstorage: {{path: {tmp_path}}}"
    with pytest.raises(ScenarioError, match=r"is remote, and storage\.path is not"):
        written(tmp_path, text)
