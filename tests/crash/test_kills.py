"""A few of the kills that `python -m tests.crash` makes by the hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import STARVED_S, Harness
from tests.crash.programs import ATTACHING, RECORDING, UNPROBED
from tests.timing import excuses


def kill(harness: Harness, *kills: tuple[str, str, float]) -> None:
    for program, victim, moment_s in kills:
        kill = harness.kill(program, victim, moment_s, from_first_step=program in RECORDING)
        if kill.lost_s is not None and (kill.starved_s < STARVED_S or not excuses()):
            assert kill.lost_s < 1.0, kill
    harness.finish()
    assert [kill for kill in harness.kills if kill.faults] == []
    assert any(kill.lost_s is not None for kill in harness.kills)


@pytest.mark.slow
def test_a_kill_leaves_a_record_and_nothing_else(tmp_path: Path) -> None:
    """Whole groups: none of their workers has to find out that it is alone."""
    kill(
        Harness(tmp_path, orphans_s=0.5),
        ("ProfiledDataLoader", "group", 0.9),
        ("trace", "group", 1.2),
        ("export parquet", "main", 0.2),
    )


@pytest.mark.slow
def test_a_record_with_unprobed_batches_is_read_as_such(tmp_path: Path) -> None:
    """They come after 512 batches, for which a program without a core may have no time."""
    harness = Harness(tmp_path, orphans_s=0.5)
    for _ in range(3):
        kill(harness, (UNPROBED, "group", 2.6))
        if harness.kills[-1].unprobed:
            return
    if excuses() and all(each.starved_s >= STARVED_S for each in harness.kills):
        pytest.skip("other programs had the cores: too few batches were made before each kill")
    pytest.fail(f"no batch was unprobed: {harness.kills}")


@pytest.mark.heavy
@pytest.mark.usefixtures("ptrace_right")
def test_a_job_that_is_attached_to(tmp_path: Path) -> None:
    """Its pipeprof is killed, and it goes on; it is killed, and its record stays."""
    kill(Harness(tmp_path), (ATTACHING, "main", 0.9), ("job attached to", "main", 1.1))


@pytest.mark.heavy
def test_orphans_end(tmp_path: Path) -> None:
    kill(Harness(tmp_path), ("profile", "main", 1.1), ("run", "main", 1.4), ("trace", "worker", 1.2))


@pytest.mark.heavy
@pytest.mark.usefixtures("ptrace_right")
def test_nothing_waits_for_a_job_that_was_killed_before_it_trained(tmp_path: Path) -> None:
    harness = Harness(tmp_path, orphans_s=1.0)
    harness.kill("job attached to", "main", 0.1)
    harness.finish()
    assert [kill for kill in harness.kills if kill.faults] == []
