"""Scenarios that cannot be meant: one message with place, key, what is allowed, the nearest word."""

# ruff: noqa: E501 - the tables read best with a case a line

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeprof.errors import ScenarioError
from pipeprof.scenario import load
from pipeprof.scenario.profile import read_profile
from pipeprof.scenario.synthetic_limits import largest_share, shard_samples


def message(tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    path = tmp_path / "disk.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "")


SHAPE = {
    "a misspelt key": ("about: x\nloader:\n  worker: 4\n", "disk.yaml:3: loader.worker: no such key", "did you mean workers?"),
    "a misspelt section": ("storag: {tier: hdd}\n", "disk.yaml:1: storag: no such key", "did you mean storage?"),
    "a key without its section": ("workers: 4\n", "disk.yaml:1: workers: no such key", "did you mean loader.workers?"),
    "a misspelt tier": ("storage:\n  tier: ramm\n", "disk.yaml:2: storage.tier: is the text 'ramm'", "did you mean ram?"),
    "a misspelt format": ("data:\n  format: jpg_folder\n", "disk.yaml:2: data.format", "did you mean jpeg_folder?"),
    "a wrong type": ("loader:\n  workers: four\n", "disk.yaml:2: loader.workers: is the text 'four'", "give a whole number"),
    "a number in quotes": ("loader:\n  workers: '4'\n", "loader.workers: is the text '4'", "give a whole number"),
    "true is no number": ("loader:\n  workers: true\n", "loader.workers: is true", "give a whole number"),
    "half a worker": ("loader:\n  workers: 1.5\n", "loader.workers: is 1.5", "give a whole number"),
    "one is not true": ("loader: {pin_memory: 1}\n", "loader.pin_memory: is 1", "give true or false"),
    "negative workers": ("loader:\n  workers: -1\n", "disk.yaml:2: loader.workers: is -1", "greater than or equal to 0"),
    "no seconds": ("run: {seconds: 0}\n", "disk.yaml:1: run.seconds: is 0", "greater than 0"),
    "endless seconds": ("run: {seconds: .inf}\n", "run.seconds: is inf", "give a finite number"),
    "more looks than ticks": ("run: {telemetry_hz: 1000}\n", "run.telemetry_hz: is 1000", "less than or equal to 100"),
    "fewer looks than none": ("run: {telemetry_hz: -1}\n", "run.telemetry_hz: is -1", "greater than or equal to 0"),
    "a list for a section": ("loader: [1]\n", "disk.yaml:1: loader: is a list", "give a section of keys"),
    "a value left out": ("loader:\n  workers:\n", "disk.yaml:2: loader.workers: is empty", "give a whole number"),
    "the expansion's own key": ("cell: {loader.workers: 1}\n", "disk.yaml:1: cell: no such key", "allowed"),
}  # fmt: skip

MEANING = {
    "prefetch without workers": ("loader:\n  workers: 0\n  prefetch: 2\n", "disk.yaml:3: loader.prefetch: needs workers", "add workers"),
    "persistent workers without workers": ("loader: {workers: 0, persistent_workers: true}\n", "loader.persistent_workers: needs workers", "add workers"),
    "a batch larger than the set": ("data: {samples: 16}\n", "loader.batch_size: is 32 and there are 16", "raise data.samples"),
    "images from nowhere": ("data:\n  format: image_folder\n", "disk.yaml:2: data.format: image_folder needs data.path", "name the directory"),
    "a dataset from nowhere": ("data: {format: imported}\n", "data.format: imported needs data.import", "package.module:callable"),
    "an import that names nothing": ("data: {format: imported, import: 'my module'}\n", "data.import: 'my module' names no callable", "package.module:callable"),
    "an import beside made samples": ("data: {import: 'a.b:c'}\n", "data.import: the format jpeg_folder imports nothing", "imported"),
    "a path beside made samples": ("data: {path: .}\n", "data.path: the format jpeg_folder is made", "image_folder"),
    "the size of one's own samples": ("data: {format: imported, import: 'a:b', sample_bytes: 9}\n", "data.sample_bytes", "leave it out"),
    "a missing directory": ("data: {format: image_folder, path: nowhere}\n", "data.path: nowhere does not exist", "name a directory"),
    "a file for a directory": ("storage: {path: disk.yaml}\n", "storage.path: disk.yaml is a file", "name a directory"),
    "a missing profile": ("storage: {profile: p.json}\n", "storage.profile: p.json does not exist", "name a file"),
    "a directory for a file": ("model: {weights: .}\n", "model.weights", "name a file"),
    "an unknown device": ("storage:\n  device: sata_ssd\n", "disk.yaml:2: storage.device: no storage device is called 'sata_ssd'", "did you mean sata-ssd?"),
    "a device of another tier": ("storage: {tier: ssd, device: hdd-7200}\n", "storage.device: hdd-7200 is of the tier hdd", "set storage.tier to hdd"),
    "an emulated real directory": ("storage: {path: ., device: sata-ssd}\n", "storage.device: storage.path is real", "leave device out"),
    "emulated memory": ("storage: {tier: ram, figures: {seek_ns: 1}}\n", "storage.figures: the tier ram is real memory", "leave figures out"),
    "a misspelt figure": ("storage:\n  figures:\n    bandwith_bytes_per_s: 1\n", "disk.yaml:3: storage.figures.bandwith_bytes_per_s", "did you mean bandwidth_bytes_per_s?"),
    "no bandwidth": ("storage: {figures: {bandwidth_bytes_per_s: 0}}\n", "storage.figures: device sata-ssd: bandwidth_bytes_per_s is 0", "above 0"),
    "a negative seek": ("storage: {tier: hdd, figures: {seek_ns: -5}}\n", "storage.figures: device hdd-7200: seek_ns is -5", "0 or more"),
    "a seek of an SSD": ("storage: {tier: ssd, figures: {seek_ns: 5}}\n", "storage.figures: device sata-ssd: seek_ns has no effect on a parallel device", "latency_ns"),
    "a latency of a disk": ("storage: {tier: hdd, figures: {latency_ns: 5}}\n", "storage.figures: device hdd-7200: latency_ns has no effect on a disk device", "seek_ns"),
    "a limit of what is all in memory": ("storage:\n  cache: warm\n  cache_bytes: 5\n", "disk.yaml:3: storage.cache_bytes: limits what stays in memory", "keep one"),
    "a limit of one's own files": ("data: {format: imported, import: 'a:b'}\nstorage: {path: ., cache_bytes: 5}\n", "storage.cache_bytes: an imported data set opens its files by itself", "leave it out"),
    "two devices": ("storage: {profile: disk.yaml, device: sata-ssd}\n", "storage.device: storage.profile says what is emulated", "keep one"),
    "decoded files": ("storage: {tier: hdd, keep: decoded}\n", "storage.keep: hdd holds files", "ram or pinned"),
    "a misspelt preset": ("accelerator: {preset: h100/resnet5}\n", "accelerator.preset: none is called 'h100/resnet5'", "did you mean h100/resnet50?"),
    "a misspelt link": ("accelerator: {link: pcie3}\n", "accelerator.link: none is called 'pcie3'", "did you mean pcie-gen3?"),
    "two step times": ("accelerator: {preset: h100/resnet50, step_ms: 3}\n", "accelerator.step_ms: the preset has a step time", "keep one"),
    "a spread of nothing": ("accelerator: {step_spread_ms: 3}\n", "accelerator.step_spread_ms", "give step_ms"),
    "a step time for a real device": ("accelerator: {kind: cuda, step_ms: 3}\n", "accelerator.step_ms: the accelerator cuda really computes", "emulated"),
    "nothing but warm-up": ("run: {steps: 5}\n", "run.warmup_steps: is 5 of 5", "more run.steps"),
    "a misspelt net": ("model: {name: two_layer_nett}\n", "model.name", "did you mean two_layer_net?"),
    "a model's display name": ("model: {name: ResNet-50}\n", "model.name: 'ResNet-50' names no model", "resnet_50"),
    "an unknown cause": ("expect:\n  cause: [decode, storage-bandwith]\n", "disk.yaml:2: expect.cause: no cause is called 'storage-bandwith'", "storage-bandwidth"),
    "an impossible share": ("expect: {min_stall: 0.5, max_stall: 0.2}\n", "expect.min_stall: is 0.5, above max_stall 0.2", "exchange"),
    "own data in memory": ("data: {format: imported, import: 'a:b'}\nstorage:\n  tier: ram\n", "disk.yaml:3: storage.tier: is ram, and an imported data set loads its own data", "in your callable"),
    "own data in pinned memory": ("data: {format: imported, import: 'a:b'}\nstorage: {tier: pinned}\n", "disk.yaml:2: storage.tier: is pinned", "choose another"),
    "decoded shards": ("data: {format: tar_shards}\nstorage:\n  tier: ram\n  keep: decoded\n", "disk.yaml:4: storage.keep: is decoded, and tar_shards are read as files", "keep encoded"),
    "shards too few for the workers": ("data: {format: tar_shards, samples: 64}\nloader:\n  workers: 4\n  batch_size: 32\n", "disk.yaml:4: loader.batch_size: is 32, and no worker has more than 16 samples", "fewer workers"),
    "an image too large": ("data:\n  sample_bytes: 50000001\n", "disk.yaml:2: data.sample_bytes: is 50000001", "50 MB or less"),
    "an image too small": ("data: {format: tar_shards, sample_bytes: 999}\n", "data.sample_bytes: is 999: no JPEG", "1 KB or more"),
    "rows for a network of images": ("data: {format: tensor_files, sample_bytes: 4000}\naccelerator: {kind: cpu}\nmodel:\n  name: resnet18\n", "disk.yaml:4: model.name: resnet18 takes images", "two_layer_net"),
    "too few classes": ("accelerator: {kind: cpu}\nmodel: {classes: 9}\n", "disk.yaml:2: model.classes: is 9, and the samples have 10 classes", "10 or more"),
    "a seed too large": ("run: {seed: 18446744073709551616}\n", "disk.yaml:1: run.seed: is 18446744073709551616", "at most 18446744073709551615"),
    "a name that is a path": ("name: a/b\n", "name: 'a/b' cannot name a directory", "letters"),
}  # fmt: skip

MATRIX = {
    "no mapping": ("matrix: [1]\n", "disk.yaml:1: matrix: is a list", "dotted keys"),
    "an empty list": ("matrix:\n  loader.workers: []\n", "disk.yaml:2: matrix.loader.workers: is an empty list", "at least one"),
    "no list": ("matrix: {loader.workers: 4}\n", "matrix.loader.workers: is 4", "give a list"),
    "an unknown key": ("matrix: {loader.worker: [1]}\n", "matrix.loader.worker: no such key", "did you mean workers?"),
    "a key below a value": ("matrix: {loader.workers.x: [1]}\n", "matrix.loader.workers.x: no such key", ""),
    "a section": ("matrix: {loader: [{workers: 1}]}\n", "matrix.loader: is a section", "such as loader.batch_size"),
    "a key that cannot vary": ("matrix: {expect.cause: [decode]}\n", "matrix.expect.cause: cannot vary", "vary keys"),
    "a value twice": ("matrix: {loader.workers: [1, 2, 1]}\n", "matrix.loader.workers: 1 stands twice", "keep one"),
    "too many cells": ("matrix: {loader.workers: [1,2,3,4,5,6,7,8,9,10], loader.prefetch: [1,2,3,4,5,6,7,8,9,10], run.seed: [1,2,3,4,5,6,7,8,9,10,11]}\n", "matrix: 10 × 10 × 11 is 1100 runs", "1000"),
    "a cell that cannot be": ("matrix:\n  loader.workers: [0, 2]\n  loader.prefetch: [1, 2]\n", "disk.yaml:3: loader.prefetch: needs workers and loader.workers is 0 (in the cell workers=0,prefetch=1 and 1 more)", "add workers"),
    "a value of the wrong type": ("matrix:\n  loader.workers:\n    - 1\n    - two\n", "disk.yaml:4: loader.workers: is the text 'two' (in the cell workers=two)", "whole number"),
    "an expectation of no axis": ("matrix: {loader.workers: [0, 2]}\nexpect: {cells: [{when: {storage.tier: hdd}}]}\n", "expect.cells[0].when.storage.tier: the matrix does not vary it", "loader.workers"),
    "an expectation of no cell": ("matrix: {loader.workers: [0, 2]}\nexpect: {cells: [{when: {loader.workers: 1}}]}\n", "expect.cells[0].when.loader.workers: is 1", "0, 2"),
    "a wrong expectation of a cell": ("matrix: {loader.workers: [0, 2]}\nexpect: {cells: [{when: {loader.workers: 0}, casue: decode}]}\n", "expect.cells[0].casue: no such key", "did you mean cause?"),
}  # fmt: skip

YAML = {
    "an empty file": ("", "disk.yaml: is empty", "pipeprof init"),
    "only comments": ("# nothing\n", "disk.yaml: is empty", "pipeprof init"),
    "a list": ("- a\n- b\n", "disk.yaml:1: a scenario is a mapping of keys, this is a list", "key: value"),
    "a text": ("hello\n", "disk.yaml:1: a scenario is a mapping of keys, this is the text 'hello'", "key: value"),
    "a tab": ("loader:\n\tworkers: 4\n", "disk.yaml:2: is not YAML: a tab stands where spaces are needed", "indent with spaces"),
    "a bracket left open": ("loader: {workers: 4\nrun: {}\n", "disk.yaml:2: is not YAML", "check"),
    "a quote left open": ("about: 'x\n", "is not YAML", "check"),
    "a key twice": ("loader:\n  workers: 1\n  workers: 2\n", "disk.yaml:3: loader.workers stands twice, first at", "keep one"),
    "a section twice": ("loader: {workers: 1}\nrun: {}\nloader: {}\n", "disk.yaml:3: loader stands twice", "keep one"),
    "two documents": ("about: x\n---\nabout: y\n", "disk.yaml:2: is not YAML: expected a single document", "check"),
    "an alias": ("run: &r {steps: 9}\nloader: *r\n", "aliases", "write the value out"),
    "an endless alias": ("run: &r [*r]\n", "aliases", "write the value out"),
    "a tag": ("about: !!python/object/apply:os.getcwd []\n", "disk.yaml:1: the tag", "plain value"),
    "a date is a text": ("loader: {workers: 2026-01-01}\n", "is the text '2026-01-01'", "whole number"),
    "another encoding": ("about: café\n".encode("latin-1"), "disk.yaml: is not text in UTF-8", "UTF-8"),
    "binary": (b"\x00\x01\x02", "disk.yaml: is not YAML", ""),
    "a deep nest": ("[" * 2000, "disk.yaml: is nested too deeply", ""),
    "a list for a key": ("? [a, b]\n: 1\n", "disk.yaml:1: a key must be a word", "key: value"),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [*SHAPE.items(), *MEANING.items(), *MATRIX.items(), *YAML.items()], ids=lambda case: case[0]
)
def test_one_message_says_what_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, tuple[str | bytes, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, problem, remedy = case[1]
    told = message(tmp_path, text)
    first, _, rest = told.partition("\n")
    assert problem in first
    assert first.startswith("disk.yaml")
    assert remedy in rest


def test_several_problems_are_told_in_one_message_in_the_order_of_the_file(tmp_path: Path) -> None:
    told = message(tmp_path, "loader:\n  worker: 4\n  batch_size: 0\nstorage: {tier: sdd}\n", "run.steps=x")
    places = [line.split(" ")[0] for line in told.splitlines() if not line.startswith("  ")]
    assert places == ["disk.yaml:2:", "disk.yaml:3:", "disk.yaml:4:", "--set"]


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path: Path) -> None:
    told = message(tmp_path, "".join(f"key{index}: 1\n" for index in range(14)))
    assert told.count("no such key") == 10
    assert told.endswith("and 4 more")


def test_a_problem_of_all_cells_is_told_once_and_names_none(tmp_path: Path) -> None:
    told = message(tmp_path, "run: {steps: 3}\nmatrix: {loader.workers: [1, 2, 3]}\n")
    assert told.count("warmup_steps") == 1
    assert "cell" not in told


def test_a_misspelt_file_is_told_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "ssd_4workers.yaml").touch()
    with pytest.raises(ScenarioError, match=r"no such file\ndid you mean ssd_4workers.yaml\?"):
        load(tmp_path / "sdd_4workers.yaml")


def test_a_directory_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("loader.workers", "--set loader.workers: is not KEY=VALUE"),
        ("=8", "--set =8: is not KEY=VALUE"),
        ("loader..workers=8", "--set loader..workers=8: is not KEY=VALUE"),
        ("loader.worker=8", "--set loader.worker=8: loader.worker: no such key"),
        ("loader.workers=-1", "--set loader.workers=-1: loader.workers: is -1"),
        ("loader.workers=", "--set loader.workers=: loader.workers: is empty"),
        ("loader.workers={", "--set loader.workers={: is not YAML"),
        ("loader.workers=[1, 2]", "--set loader.workers=[1, 2]: loader.workers: is a list"),
        ("storage.tier=nvm", "--set storage.tier=nvm: storage.tier: is the text 'nvm'"),
        ("about.x=1", "--set about.x=1: about is not a section but"),
        ("matrix.loader.workers=[]", "--set matrix.loader.workers=[]: matrix.loader.workers: is an empty list"),
        ("matrix.loader.workers=[1, x]", "--set matrix.loader.workers=[1, x]: loader.workers: is the text 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(tmp_path: Path, override: str, problem: str) -> None:
    assert message(tmp_path, "about: x\n", override).startswith(problem)


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 64, 100, 2048, 2049, 5000])
@pytest.mark.parametrize("workers", [0, 1, 3, 4, 16, 40])
def test_the_largest_share_of_shards_is_what_dealing_them_out_gives(samples: int, workers: int) -> None:
    each, parts = shard_samples(samples), max(1, workers)
    sizes = [min(each, samples - first) for first in range(0, samples, each)]
    assert largest_share(samples, workers) == max(sum(sizes[part::parts]) for part in range(parts))


@pytest.mark.parametrize(
    "text",
    [
        "data: {format: tar_shards, samples: 64}\nloader: {workers: 4, batch_size: 16}\n",
        "data: {format: tar_shards, samples: 64}\nloader: {workers: 4, batch_size: 32, drop_last: false}\n",
        "data: {format: tensor_files, sample_bytes: 10}\naccelerator: {kind: cpu}\nmodel: {name: two_layer_net}\n",
        "data: {format: tensor_files}\naccelerator: {kind: emulated}\nmodel: {classes: 2}\n",
        "data: {samples: 32}\naccelerator: {kind: cpu}\nmodel: {classes: 10}\n",
        "data: {format: tar_shards}\nstorage: {tier: ram}\n",
        "data: {format: imported, import: 'a:b'}\nstorage: {tier: nvme}\n",
        "run: {seed: 18446744073709551615}\n",
    ],
)
def test_what_runs_is_not_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "disk.yaml").write_text(text)
    assert len(load(tmp_path / "disk.yaml")) == 1


@pytest.mark.parametrize(
    ("key", "name"), [("storage.path", "set"), ("storage.profile", "disk.yaml"), ("data.path", "set")]
)
def test_what_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.setattr("pipeprof.scenario.checks.os.access", lambda path, rights: False)  # root may always
    section, _, word = key.partition(".")
    text = f"{section}: {{{word}: {name}{', format: image_folder' if section == 'data' else ''}}}\n"
    assert f"{key}: {name} cannot be read: permission denied" in message(tmp_path, text)


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(ScenarioError, match="not a regular file"):
        load(tmp_path / "fifo.yaml")
    with pytest.raises(ScenarioError, match="not a regular file"):
        read_profile(tmp_path / "fifo.yaml")


def test_a_profile_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("[" * 100_000)
    with pytest.raises(ScenarioError, match="is not JSON"):
        read_profile(tmp_path / "profile.json")
