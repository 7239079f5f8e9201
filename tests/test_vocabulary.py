"""Every word of the product has every text, and stands in the vocabulary alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import pipeprof
from pipeprof.vocabulary import bands, causes, fixes, mechanisms, owners, utilization
from pipeprof.vocabulary.causes import Cause, Detail
from pipeprof.vocabulary.fixes import Fix
from pipeprof.vocabulary.mechanisms import Mechanism
from pipeprof.vocabulary.owners import Owner
from pipeprof.vocabulary.utilization import Utilization

DETAILS = [(cause, detail) for cause in causes.CAUSES for detail in cause.details]
WORD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(:[a-z_]+)?")
NAMED = "a: b %s {c} é"
"""A name that a user may give to a stage."""


def figures(template: str) -> set[str]:
    """Return the names in braces of a template."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def is_sentence(text: str) -> bool:
    begins = text[:1].isupper() or text[:1] in "{_"  # a figure, or a name of Python's
    return bool(text) and begins and text.endswith(".") and "  " not in text


@pytest.mark.parametrize("owner", owners.OWNERS, ids=lambda owner: owner.name)
def test_an_owner_has_every_text(owner: Owner) -> None:
    assert WORD.fullmatch(owner.name)
    assert owner.label and owner.limits and owner.terminal
    assert is_sentence(owner.how)
    assert re.fullmatch("#[0-9a-f]{6}", owner.colour)
    assert figures(owner.limits) <= ({"name"} if owner.takes_name else set())
    assert owners.record_of(owner.name) is owner
    assert owners.label_of(owner.name) == owner.label


@pytest.mark.parametrize("fix", fixes.FIXES, ids=lambda fix: fix.word)
def test_a_fix_has_every_text(fix: Fix) -> None:
    assert WORD.fullmatch(fix.word)
    assert fix.label[:1].isupper() and fix.do[:1].isupper()
    assert not fix.do.endswith(".")
    assert is_sentence(fix.changes)
    assert not fix.harm or is_sentence(fix.harm)
    assert fix.harm or not fix.reorders, "a changed order is a harm that must be named"
    assert not fix.argument or fix.argument.isidentifier()


@pytest.mark.parametrize("cause", causes.CAUSES, ids=lambda cause: cause.word)
def test_a_cause_has_every_text_and_a_fix_or_says_why_none(cause: Cause) -> None:
    assert WORD.fullmatch(cause.word)
    assert cause.waiting_for
    assert figures(cause.waiting_for) <= {"device", "name"}
    assert not cause.evidence or is_sentence(cause.evidence)
    assert cause.fixes or cause.no_fix
    assert set(cause.fixes) <= set(fixes.FIXES) - {fixes.NONE}


@pytest.mark.parametrize(("cause", "detail"), DETAILS, ids=lambda record: record.word)
def test_a_detail_has_every_text(cause: Cause, detail: Detail) -> None:
    assert WORD.fullmatch(detail.word)
    assert is_sentence(detail.evidence)
    assert cause.candidates(detail.word) or cause.no_fix
    assert not set(detail.ineffective) & set(cause.candidates(detail.word))


@pytest.mark.parametrize("mechanism", mechanisms.MECHANISMS, ids=lambda mechanism: mechanism.word)
def test_a_mechanism_has_every_text_and_a_fix_or_says_why_none(mechanism: Mechanism) -> None:
    assert WORD.fullmatch(mechanism.word)
    assert mechanism.label and mechanism.measured
    assert is_sentence(mechanism.meaning)
    assert mechanism.says.endswith(".") and figures(mechanism.says)
    assert 0 < mechanism.at_least < 100
    assert mechanism.fixes or mechanism.no_fix


@pytest.mark.parametrize("kind", utilization.UTILIZATIONS, ids=lambda kind: kind.word)
def test_a_kind_of_utilisation_has_every_text(kind: Utilization) -> None:
    assert WORD.fullmatch(kind.word) and kind.label and kind.waiter[:1].isupper()
    assert is_sentence(kind.how)


def test_a_share_of_time_is_compared_with_the_share_that_must_be_explained() -> None:
    """Those are judged by `EXPLAINS` alone: a threshold of their own would not be looked at."""
    shares = [each for each in mechanisms.MECHANISMS if each.measured.startswith("share of")]
    assert len(shares) >= 6
    assert {each.at_least for each in shares} == {mechanisms.EXPLAINS}


@pytest.mark.parametrize("mechanism", mechanisms.MECHANISMS, ids=lambda mechanism: mechanism.word)
def test_a_threshold_that_is_no_share_of_time_decides(mechanism: Mechanism) -> None:
    """The judges read it from here, and have no number of their own in its place."""
    name = next(name for name, value in vars(mechanisms).items() if value is mechanism)
    judges = ("why/mechanisms.py", "hazards.py")
    code = "".join((Path(pipeprof.__file__).parent / "analyse" / each).read_text() for each in judges)
    reads = f"mechanisms.{name}.at_least" in code
    assert reads != mechanism.measured.startswith("share of") or mechanism is mechanisms.THREAD_CONSUMER


@pytest.mark.parametrize(
    "words",
    [
        [owner.name for owner in owners.OWNERS],
        [fix.word for fix in fixes.FIXES],
        [cause.word for cause in causes.CAUSES],
        [detail.word for _, detail in DETAILS],
        [mechanism.word for mechanism in mechanisms.MECHANISMS],
    ],
)
def test_no_word_has_two_records(words: list[str]) -> None:
    assert len(set(words)) == len(words)


def test_every_new_fix_of_a_mechanism_is_known() -> None:
    for mechanism in mechanisms.MECHANISMS:
        assert set(mechanism.fixes) <= set(fixes.FIXES)


def test_every_fix_bears_on_something() -> None:
    used = {fix for cause in causes.CAUSES for fix in cause.fixes}
    used |= {fix for cause, detail in DETAILS for fix in cause.candidates(detail.word)}
    used |= {fix for mechanism in mechanisms.MECHANISMS for fix in mechanism.fixes}
    assert set(fixes.FIXES) - used == {fixes.NONE}


@pytest.mark.parametrize("family", [owners.TRANSFORM, owners.STAGE], ids=lambda family: family.name)
@pytest.mark.parametrize("name", ["Resize", NAMED, "transform:x", ":"])
def test_a_name_of_a_users_own_survives(family: Owner, name: str) -> None:
    word = family.called(name)
    assert owners.family_of(word) == family.name
    assert owners.name_in(word) == name
    assert owners.label_of(word) == name
    assert owners.record_of(word) is family
    assert owners.merged(word) == word
    assert owners.of_stage(word) == word
    assert name in owners.limit_of(word)
    assert causes.is_cause(word)
    assert name in causes.waiting_for(word, None, "disk")


def test_the_dataset_s_own_code_is_a_stage_with_a_record_of_its_own() -> None:
    assert owners.family_of("stage:getitem") == "stage"
    assert owners.label_of("stage:getitem") == "__getitem__"
    assert owners.of_stage("getitem") == "stage:getitem"


def test_parts_of_storage_add_up_under_one_word() -> None:
    assert [owners.merged(word) for word in ("storage:device", "storage", "decode")] == [
        "storage",
        "storage",
        "decode",
    ]
    assert owners.of_stage("read") == "storage"
    assert "storage" not in owners.FIXED and "storage:first-byte" in owners.FIXED
    assert owners.FIXED[-1] == "unknown"


@pytest.mark.parametrize("owner", ["storage", owners.STAGE.called(NAMED), ""])
def test_a_rank_that_is_waited_for_is_found_again(owner: str) -> None:
    word = owners.waiting_for(3, owner)
    assert owners.rank_and_owner(word) == ("3", owner)
    assert not owners.is_stall(word)


def test_a_rank_is_called_by_what_made_it_late() -> None:
    assert owners.label_of(owners.waiting_for(3, "decode")) == "rank 3's decode"
    assert owners.label_of(owners.waiting_for(None)) == "other ranks"


@pytest.mark.parametrize(
    "word", ["", "nonsense", "transform", "stage", "stage:", "transform:", "rank:1:decode"]
)
def test_what_is_no_cause(word: str) -> None:
    assert not causes.is_cause(word)


def test_a_word_that_no_record_has_is_unknown() -> None:
    assert owners.record_of("nonsense") is owners.UNKNOWN
    assert owners.label_of("nonsense") == "nonsense"
    with pytest.raises(KeyError):
        causes.record_of("nonsense")


def test_a_sentence_whose_figure_is_missing_is_left_out() -> None:
    full = {"reads_per_batch": "32", "emulated": "", "device": "disk", "reads_per_s": "55"}
    said = causes.evidence("storage-latency", None, full)
    assert said == "Each batch needs 32 reads; the disk served 55 reads/s."
    assert causes.evidence("storage-latency", None, {"device": "disk"}) == ""


@pytest.mark.parametrize(
    ("share", "word"),
    [(0.0, "not"), (0.0499, "not"), (0.05, "moderately"), (0.2, "highly"), (1.0, "highly")],
)
def test_bands(share: float, word: str) -> None:
    assert bands.band_of(share).word == word
    assert bands.label_of(word).endswith("input-bound")
    assert bands.label_of(None) == "in no band"


AMBIGUOUS = frozenset(
    [
        # fields of tables, of run.json, of scenarios and of the simulator's arrays
        "accelerator", "blocked", "client", "emulated", "main", "pin", "rank", "ram", "sampler", "shards",
        "stage", "storage", "threads", "transfer", "transform",
        # words of other libraries and of plain English
        "decode", "fork", "gc", "gil", "lock", "loop", "none", "pipe", "sleep", "socket", "unknown",
    ]
)  # fmt: skip
"""Words that mean something else elsewhere: a literal of these says nothing."""
ALLOWED = {
    ("analyse/doubts.py", "page-cache"),  # names a doubt
    ("analyse/gates.py", "inconclusive"),  # says how a gate ended
    ("report/page/workers.py", "start-up"),  # heads a column
}


def literals(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module but for names of attributes in `__slots__`, which are no words."""
    slots = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets)
    ]
    attributes = {id(part) for value in slots for part in ast.walk(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in attributes:
            yield node.value


def every_word() -> set[str]:
    owned = {owner.name for owner in owners.OWNERS} | set(owners.FIXED)
    caused = {cause.word for cause in causes.CAUSES} | {detail.word for _, detail in DETAILS}
    kinds = {kind.word for kind in utilization.UTILIZATIONS}
    return owned | caused | kinds | {*fixes.BY_WORD, *mechanisms.BY_WORD}


def test_a_word_is_a_literal_in_the_vocabulary_alone() -> None:
    root = Path(pipeprof.__file__).parent
    words = every_word() - AMBIGUOUS
    found = {
        (path.relative_to(root).as_posix(), word)
        for path in root.rglob("*.py")
        if path.parent.name != "vocabulary"
        for word in words.intersection(literals(ast.parse(path.read_text())))
    }
    assert found == ALLOWED


def test_what_is_called_ambiguous_is_a_word() -> None:
    assert every_word() >= AMBIGUOUS


def test_the_loops_time_in_the_table_covers_each_detail_of_its_cause() -> None:
    assert "next()" in owners.MAIN.label and "next()" in owners.MAIN.how
    assert "next()" in causes.IN_NEXT.evidence
