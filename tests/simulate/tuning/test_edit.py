from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeprof.record.meta import LoaderMeta
from pipeprof.simulate.tuning.edit import edit_of

MANY = """loader = DataLoader(
    data,
    num_workers=2,  # as many as cores
    shuffle=True,  # é
)
"""

MANY_AFTER = MANY.replace("=2", "=4").replace("  # é", "\n    prefetch_factor=4,  # é")
LAST = "x = DataLoader(d, num_workers=2, prefetch_factor=8)"


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        ("x = DataLoader(data)\n", {"num_workers": 4}, "x = DataLoader(data, num_workers=4)\n"),
        ("x = DataLoader(d, num_workers=2)", {"num_workers": 4}, "x = DataLoader(d, num_workers=4)"),
        (
            "x = DataLoader(d, 8, True, None, None, 2)",
            {"num_workers": 4},
            "x = DataLoader(d, 8, True, None, None, 4)",
        ),
        ("x = DataLoader(d, workers,)", {"pin_memory": True}, "x = DataLoader(d, workers, pin_memory=True)"),
        (
            "x = DataLoader((d), )",
            {"num_workers": 1, "in_order": False},
            "x = DataLoader((d), num_workers=1, in_order=False )",
        ),
        (
            "f(é, DataLoader(d, batch_size=b(1)))",
            {"num_workers": 4},
            "f(é, DataLoader(d, batch_size=b(1), num_workers=4))",
        ),
        (MANY, {"num_workers": 4, "prefetch_factor": 4}, MANY_AFTER),
        (
            MANY.replace("True,  # é", "True"),
            {"prefetch_factor": 4},
            MANY.replace("True,  # é", "True,\n    prefetch_factor=4"),
        ),
        (LAST, {"num_workers": 0, "prefetch_factor": None}, LAST.replace("2", "0").replace("8", "None")),
        (
            "x = DataLoader(d, num_workers=2)",
            {"num_workers": 0, "prefetch_factor": None},
            "x = DataLoader(d, num_workers=0)",
        ),
    ],
)
def test_a_call_gets_its_arguments(
    before: str, arguments: dict[str, Any], after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train.py"
    path.write_text(before)
    column = len(before[: before.index("DataLoader(")].encode())
    edit = edit_of(LoaderMeta(0, file=str(path), line=1, column=column), arguments)
    assert path.read_text() == before, "it is never applied by itself"
    subprocess.run(["patch", "-p1", "-s"], input=edit.diff, text=True, check=True)
    assert path.read_text() == after


def test_a_value_from_elsewhere_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("x = DataLoader(d, num_workers=args.workers)\n")
    edit = edit_of(LoaderMeta(0, file=str(path), line=1), {"num_workers": 4})
    assert "+x = DataLoader(d, num_workers=4)\n" in edit.diff
    assert edit.notes == ("num_workers came from `args.workers`: it may be better changed there",)


@pytest.mark.parametrize(
    ("source", "said"),
    [("x = DataLoader(d, **options)\n", "from a dictionary too"), ("x = 1\n", "train.py:1 num_workers=4")],
)
def test_where_there_is_no_diff_it_says_what_to_write(source: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(source)
    edit = edit_of(LoaderMeta(0, file=str(path), line=1, column=4), {"num_workers": 4})
    assert not edit.diff and said in " ".join(edit.notes)


def test_a_loader_that_the_trainer_makes() -> None:
    loader = LoaderMeta(0, file="/env/transformers/trainer.py", line=9, in_library=True)
    assert edit_of(loader, {"num_workers": 4}).notes == ("give TrainingArguments dataloader_num_workers=4",)
