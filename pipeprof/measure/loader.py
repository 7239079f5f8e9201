"""ProfiledDataLoader and profile(): torch's DataLoader, composed and never forked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pipeprof.measure.session import Session


class ProfiledDataLoader(DataLoader[Any]):
    """torch's DataLoader, watched: same arguments, same batches.

    `out` is the run directory (a temporary one by default), `detail="sample"` keeps every span, and
    `session` is an observed run to join.
    """

    def __init__(
        self,
        dataset: Any,
        *arguments: Any,
        out: Path | str | None = None,
        detail: str = "batch",
        session: Session | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(dataset, *arguments, **keywords)
        self.out, self.detail = out, detail
        self.session = session or Session(out, detail=detail)
        self.session.observe(self)

    def save(self, directory: Path | str) -> Path:
        """Write the run so far into `directory`."""
        raise NotImplementedError


@contextmanager
def profile(
    loader: DataLoader[Any], out: Path | str | None = None, detail: str = "batch"
) -> Iterator[DataLoader[Any]]:
    """Watch a loader that exists, for as long as the block lasts."""
    with Session(out, detail=detail) as session:
        yield session.observe(loader)
