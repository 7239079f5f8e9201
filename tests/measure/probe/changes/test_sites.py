from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeprof.measure.probe.changes.sites import name_at
from pipeprof.record.calls import call_at


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("train_loader = DataLoader(x)", "train_loader"),
        ("self.val = DataLoader(x)", "val"),
        ("loaders['val'] = DataLoader(x)", "val"),
        ("loaders = {'val': DataLoader(x), 'test': 3}", "val"),
        ("loaders = {name: DataLoader(x) for name in y}", "loaders"),
        ("fit(model, train_dataloaders=DataLoader(x))", "train_dataloaders"),
        ("model, train, val = prepare(m, DataLoader(x), DataLoader(y))", "train"),
        ("train, val = DataLoader(x), DataLoader(y)", "train"),
        ("loader: DataLoader = DataLoader(x)", "loader"),
        ("def val_dataloader(self):\n    return DataLoader(x)", "val_dataloader"),
        ("for batch in DataLoader(x): pass", ""),
        ("fit(DataLoader(x))", ""),
        ("if (loader := DataLoader(x)): pass", "loader"),
    ],
)
def test_what_the_source_calls_it(source: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(source)
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "DataLoader(" in text)
    text = source.splitlines()[line - 1]
    assert name_at(str(path), line, text.index("DataLoader(")) == name


def test_a_call_is_found_by_its_column_alone_where_several_stand_in_a_line() -> None:
    tree = ast.parse("a, b = Loader(f(1)), Loader(2)")
    assert call_at(tree, 1, None) is None
    found = call_at(tree, 1, 7)
    assert found is not None and ast.unparse(found) == "Loader(f(1))"
    assert call_at(ast.parse("x = Loader(1)"), 1, None) is not None


def test_a_file_that_is_not_there_has_no_names() -> None:
    assert name_at("<stdin>", 1, 0) == ""
