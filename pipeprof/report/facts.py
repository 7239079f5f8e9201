"""What every output says about one run, read once from an `Answer`: numbers with their owners, no layout.

The terminal, the page and the tables are siblings over these facts, so that they cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from pipeprof.report import units, words


class Answer(Protocol):
    """What the reports need of `pipeprof.analyse.answer.Answer`."""

    @property
    def run(self) -> Any:
        """The record."""
        ...

    @property
    def timeline(self) -> Any:
        """Its events as arrays."""
        ...

    @property
    def attribution(self) -> Any:
        """An owner for each nanosecond; None where nothing was measured."""
        ...

    @property
    def ledger(self) -> Any:
        """Who owned its time; None where nothing was measured."""
        ...

    @property
    def verdict(self) -> Any:
        """Band, cause, fix, evidence, doubts."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The dictionary of DESIGN §5."""
        ...


@dataclass(frozen=True, slots=True)
class Owned:
    """One owner's time, in the accelerator's day and on the critical path."""

    owner: str
    label: str
    colour: str
    how: str
    ledger_ns: int
    ledger_share: float
    path_ns: int | None
    path_share: float | None
    step_ns: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """One run, ready to be shown."""

    name: str
    directory: str
    status: str
    created: str
    headline: str
    """The first sentence of the verdict: what happened, and why."""
    evidence: str
    """The rest of it."""
    band: str | None
    cause: str | None
    fix: str | None
    detail: str | None
    stall_share: float | None
    stall_interval: tuple[float, float] | None
    stall_ns: int | None
    wall_ns: int | None
    utilization: float | None
    utilization_kind: str | None
    throughput: float | None
    steps: int
    owned: tuple[Owned, ...]
    doubts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    emulated: tuple[str, ...]
    not_observed: tuple[str, ...]
    chips: tuple[str, ...]
    meta: Mapping[str, Any]

    @property
    def healthy(self) -> bool:
        """Nothing in the loader is worth fixing."""
        return self.band == "not" and self.cause in ("accelerator", None)

    @property
    def utilization_name(self) -> str:
        """What the utilisation figure is, emulated where it is."""
        return words.utilisation(self.utilization_kind)[0]


def facts(answer: Answer) -> Facts:
    """Read an answer. Whatever is missing stays None and prints as "not observed"."""
    said = answer.as_dict()
    verdict = said.get("verdict") or {}
    meta = answer.run.meta
    headline, evidence = split_sentence(str(verdict.get("sentence") or "Nothing was measured."))
    wall = said.get("wall_ns")
    stall = verdict.get("stall_share")
    return Facts(
        name=str(meta.get("name") or answer.run.directory.name),
        directory=str(answer.run.directory),
        status=str(said.get("status") or answer.run.status),
        created=created(meta.get("created_at")),
        headline=headline,
        evidence=evidence,
        band=verdict.get("band"),
        cause=verdict.get("cause"),
        fix=verdict.get("fix"),
        detail=verdict.get("detail"),
        stall_share=stall,
        stall_interval=_pair(verdict.get("stall_interval")),
        stall_ns=round(stall * wall) if stall is not None and wall else None,
        wall_ns=wall,
        utilization=said.get("utilization"),
        utilization_kind=said.get("utilization_kind"),
        throughput=said.get("throughput_samples_per_s"),
        steps=int(said.get("steps") or 0),
        owned=_owned(said),
        doubts=tuple(_doubt(item) for item in verdict.get("doubts") or ()),
        warnings=tuple(str(text) for text in meta.get("warnings") or ()),
        emulated=tuple(str(part) for part in said.get("emulated") or ()),
        not_observed=tuple(str(part) for part in said.get("not_observed") or ()),
        chips=chips(meta, int(said.get("steps") or 0)),
        meta=meta,
    )


def split_sentence(sentence: str) -> tuple[str, str]:
    """The claim and its evidence: `It waited 61 %, for the disk: each batch …` is two sentences."""
    sentence = re.sub(r"(?<=\d)%", " %", sentence)
    head, colon, tail = sentence.partition(": ")
    if colon and ". " not in head:
        return head.rstrip(".") + ".", tail[:1].upper() + tail[1:]
    head, stop, tail = sentence.partition(". ")
    return (head + ".", tail) if stop else (sentence, "")


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if value is not None and None not in value else None


def _doubt(item: Any) -> tuple[str, str]:
    """A doubt is a mapping with `problem` and `remedy`, or plain text."""
    if isinstance(item, Mapping):
        return str(item.get("problem") or item.get("name") or ""), str(item.get("remedy") or "")
    return str(item), ""


def _owned(said: Mapping[str, Any]) -> tuple[Owned, ...]:
    ledger, path = said.get("ledger_ns") or {}, said.get("path_ns") or {}
    total, length, steps = sum(ledger.values()), sum(path.values()), said.get("steps") or 0
    rows = []
    for name in sorted({*ledger, *path}, key=words.rank):
        owner = words.owner(name)
        ns, on_path = int(ledger.get(name, 0)), (int(path.get(name, 0)) if path else None)
        rows.append(
            Owned(
                owner=name,
                label=owner.label,
                colour=owner.colour,
                how=owner.how,
                ledger_ns=ns,
                ledger_share=ns / total if total else 0.0,
                path_ns=on_path,
                path_share=on_path / length if on_path is not None and length else None,
                step_ns=ns / steps if steps else None,
            )
        )
    return _folded([row for row in rows if row.ledger_ns or row.path_ns])


TINY: Final = 0.0005
"""Owners below this share in both views stand together as one: they round to 0.0 %."""


def _folded(rows: list[Owned]) -> tuple[Owned, ...]:
    tiny = [row for row in rows if max(row.ledger_share, row.path_share or 0.0) < TINY]
    if len(tiny) < 2:
        return tuple(rows)
    others = words.owner("others")
    together = Owned(
        "others",
        others.label,
        others.colour,
        ", ".join(row.label for row in tiny),
        sum(row.ledger_ns for row in tiny),
        sum(row.ledger_share for row in tiny),
        sum(row.path_ns or 0 for row in tiny),
        sum(row.path_share or 0.0 for row in tiny),
        sum(row.step_ns or 0.0 for row in tiny),
    )
    return (*(row for row in rows if row not in tiny), together)


def created(text: Any) -> str:
    """`21 Nov 2026, 09:15` of an ISO time; the text itself where it is none."""
    try:
        return f"{datetime.fromisoformat(str(text)):%-d %b %Y, %H:%M}"
    except ValueError:
        return str(text) if text else units.NOT_OBSERVED


def chips(meta: Mapping[str, Any], steps: int) -> tuple[str, ...]:
    """The knobs of the first loader, in a few words each."""
    loaders = meta.get("loaders") or []
    loader = loaders[0] if loaders and isinstance(loaders[0], Mapping) else {}
    said = []
    if loader.get("workers") is not None:
        said.append(units.plural(int(loader["workers"]), "worker") if loader["workers"] else "no workers")
    if loader.get("workers") and loader.get("prefetch") is not None:
        said.append(f"prefetch {loader['prefetch']}")
    if loader.get("batch_size") is not None:
        said.append(f"batch {loader['batch_size']}")
    if loader.get("pin_memory"):
        said.append("pinned")
    if loader.get("in_order") is False:
        said.append("out of order")
    said.append(units.plural(steps, "measured step"))
    if len(loaders) > 1:
        said.append(units.plural(len(loaders), "loader"))
    return tuple(said)
