"""Jobs of several ranks with planted lateness: whom the others waited for, and why."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeprof.analyse.analysis import analyse
from pipeprof.analyse.figures import cores_of
from pipeprof.analyse.job.lateness import segments
from pipeprof.analyse.job.merge import find_parts, merge
from pipeprof.analyse.job.merged import JobAnalysis, judge
from pipeprof.analyse.ledger.attribution import attribute
from pipeprof.analyse.why.shown import Shown
from pipeprof.errors import TraceError
from pipeprof.record.choice import RecordedChoice, write_choice
from pipeprof.record.directories import part_of
from pipeprof.record.meta import MachineMeta, RunMeta
from pipeprof.record.reader import load
from pipeprof.report import jobs as report
from pipeprof.vocabulary import fixes, mechanisms
from tests.analyse.jobs import Job, make_job, times
from tests.factory import MS, S

LATE = Job(read={2: 30 * MS})
"""Rank 2 reads 28 ms longer than the others."""


def merged(directory: Path, job: Job) -> JobAnalysis:
    return merge([make_job(directory, job)])


def assert_sums(found: JobAnalysis) -> None:
    for row in found.ranks:
        assert sum(row.ledger_ns.values()) == row.wall_ns


def test_the_verdict_names_the_late_rank_and_its_cause(tmp_path: Path) -> None:
    found = merged(tmp_path, LATE)
    verdict = found.verdict
    assert (verdict.rank, verdict.cause, verdict.band) == (2, "storage-latency", "highly")
    assert "rank 2" in verdict.sentence
    assert verdict.fix in ("ram", "faster-storage", "more-workers")
    assert found.status == "complete"
    assert not found.doubts


def test_the_late_ranks_own_fix_and_mechanism_are_the_jobs(tmp_path: Path) -> None:
    part = part_of(make_job(tmp_path, LATE), 2)
    own = analyse(load(part)).verdict
    assert own.fix != "shards"
    write_choice(part, RecordedChoice(own.cause, own.detail, "shards"))
    assert analyse(load(part)).verdict.fix == "shards"
    found = merge([tmp_path])
    assert (found.verdict.cause, found.verdict.fix) == (own.cause, "shards")
    mechanism = Shown(mechanisms.OVER_READ, 0.9, {}, fixes.SHARDS)
    rows = [
        row if row.verdict is None else replace(row, verdict=replace(row.verdict, shown=mechanism))
        for row in found.ranks
    ]
    assert mechanism.sentence in judge(rows).sentence


def some_of(directory: Path, job: Job, chosen: dict[str, object], absent: list[int]) -> JobAnalysis:
    """Merge a job of which some ranks were chosen, with the parts of `absent` ranks gone."""
    told = {rank: {"chosen": chosen} for rank in range(job.ranks)}
    make_job(directory, replace(job, told=told))
    for rank in absent:
        shutil.rmtree(directory / f"rank-{rank}")
    return merge([directory])


def test_the_verdict_says_which_ranks_were_not_chosen(tmp_path: Path) -> None:
    found = some_of(tmp_path, Job(read={1: 30 * MS}), {"every": 2}, absent=[1, 3])
    assert found.status == "complete"
    assert not found.doubts
    assert found.verdict.rank is None, "the late one was not looked at"
    assert "2 of 4 ranks were not observed (asked for: every 2)" in found.verdict.sentence
    assert found.unobserved is not None
    # the two observed ones come 28 ms before rank 1, and all meet for 1 ms: of 53 ms a step
    assert found.unobserved.meetings_share == pytest.approx(29 / 51, abs=0.03)
    assert found.as_dict()["unobserved"]["ranks"] == 2
    assert_sums(found)


def test_a_chosen_rank_that_is_missing_is_missing_all_the_same(tmp_path: Path) -> None:
    found = some_of(tmp_path, LATE, {"ranks": [0, 2]}, absent=[1, 2, 3])
    assert found.status == "partial"
    assert [doubt.name for doubt in found.doubts] == ["missing-ranks"]
    assert "of 4 ranks 1 are not here: 2" in found.doubts[0].problem
    assert found.unobserved is not None
    assert found.unobserved.ranks == 2


def test_inferred_meetings_do_not_tell_of_ranks_that_nobody_looked_at(tmp_path: Path) -> None:
    found = some_of(tmp_path, Job(recorded=False), {"every": 2}, absent=[1, 3])
    assert found.unobserved is not None
    assert found.unobserved.meetings_share is None
    assert "is not known" in found.verdict.sentence


def test_waiting_is_charged_to_the_rank_waited_for_and_every_ledger_sums(tmp_path: Path) -> None:
    found = merged(tmp_path, LATE)
    assert_sums(found)
    measured = LATE.steps - LATE.warmup
    for row in found.ranks:
        if row.rank == 2:
            assert row.waited_ns == 0
            assert row.caused_ns == pytest.approx(3 * 28 * MS * measured, rel=1e-3)
            assert set(row.cost_ns) == {"storage"}
        else:
            # the last meeting is after the window, which ends with the last step
            assert row.ledger_ns["rank:2:storage"] == pytest.approx(28 * MS * (measured - 1), rel=0.03)
            assert row.caused_ns == 0


def test_a_rank_that_computes_slowly_is_late_for_its_computing(tmp_path: Path) -> None:
    found = merged(tmp_path, Job(compute={1: 45 * MS}))
    assert (found.verdict.rank, found.verdict.cause) == (1, "accelerator")
    assert_sums(found)


def test_ranks_that_are_late_in_turn_are_not_one_culprit(tmp_path: Path) -> None:
    reads = {rank: [60 * MS if k % 4 == rank else MS for k in range(80)] for rank in range(4)}
    found = merged(tmp_path, Job(steps=80, read=reads))
    assert found.verdict.rank is None
    assert found.verdict.cause == "storage-latency"
    assert "each other" in found.verdict.sentence
    assert_sums(found)


def test_ranks_that_all_stall_alike_have_their_common_cause(tmp_path: Path) -> None:
    found = merged(tmp_path, Job(usual_read=30 * MS))
    assert (found.verdict.rank, found.verdict.cause) == (None, "storage-latency")
    assert "No rank stands out" in found.verdict.sentence


def test_healthy_ranks_have_nothing_to_say(tmp_path: Path) -> None:
    verdict = merged(tmp_path, Job(usual_read=MS // 5, exchange=MS // 5)).verdict
    assert (verdict.rank, verdict.cause, verdict.band, verdict.fix) == (None, "accelerator", "not", "none")


def test_two_machines_clocks_are_aligned_by_the_common_ends(tmp_path: Path) -> None:
    hosts = {2: "second", 3: "second"}
    apart = Job(
        ranks=4,
        steps=200,
        read={3: 30 * MS},
        hosts=hosts,
        offset_ns={"second": 5 * S},
        drift={"second": 50e-6},
        jitter_ns=20_000,
    )
    found = merged(tmp_path / "apart", apart)
    clock = found.clocks["boot-of-second"]
    assert clock.residual_ns is not None
    assert 2_000 < clock.residual_ns < 40_000
    assert clock.drift == pytest.approx(50e-6, rel=0.2)
    first, _, _, left = times(apart)
    own = left[3] + 5 * S + np.rint((left[3] - first[0, 0]) * 50e-6).astype(np.int64)
    assert np.abs(clock.to_reference(own) - left[3]).max() < 50_000
    assert (found.verdict.rank, found.verdict.cause) == (3, "storage-latency")
    nodes = {node.host: node for node in found.nodes()}
    assert [row.host for row in nodes["second"].ranks] == ["second", "second"]
    assert "clocks of 2 machines were aligned" in " ".join(report.lines(found))


def test_clocks_that_cannot_be_aligned_are_not_called_so(tmp_path: Path) -> None:
    """The second machine's rank died before it met anyone; the third's met the first's."""
    hosts = {2: "second", 3: "third"}
    none = merged(tmp_path / "none", Job(hosts={2: "second"}, ended={2: 0}))
    said = " ".join(report.lines(none))
    assert "The clocks of 2 machines are not aligned." in said
    assert "to within" not in said
    assert "clocks" in [doubt.name for doubt in none.doubts]
    some = merged(tmp_path / "some", Job(hosts=hosts, ended={2: 0}))
    said = " ".join(report.lines(some))
    assert "clocks of 2 machines were aligned" in said
    assert "those of 1 more are not aligned" in said


def test_machines_are_aligned_with_each_other_where_the_first_ranks_met_nobody(tmp_path: Path) -> None:
    hosts = {1: "second", 2: "third", 3: "third"}
    apart = Job(read={2: 30 * MS}, hosts=hosts, ended={0: 0}, offset_ns={"third": 5 * S})
    found = merged(tmp_path, apart)
    assert found.clocks["boot-of-third"].residual_ns is not None
    assert (found.verdict.rank, found.verdict.cause) == (2, "storage-latency")
    assert_sums(found)


def test_a_killed_rank_leaves_what_it_had_written(tmp_path: Path) -> None:
    found = merged(tmp_path, Job(read={2: 30 * MS}, ended={1: 30}))
    assert found.status == "partial"
    assert [row.steps for row in found.ranks] == [55, 25, 55, 55]
    assert found.verdict.rank == 2
    assert [doubt.name for doubt in found.doubts] == ["partial-ranks"]
    assert_sums(found)


def test_a_rank_that_wrote_no_step_is_listed(tmp_path: Path) -> None:
    found = merged(tmp_path, Job(read={2: 30 * MS}, ended={1: 0}))
    assert found.ranks[1].steps == 0
    assert found.verdict.rank == 2
    assert found.recorded, "the others have recorded their meetings"
    assert [doubt.name for doubt in found.doubts] == ["partial-ranks"]
    assert report.lines(found)


def test_a_rank_that_died_before_its_first_meeting_leaves_the_others_recorded(tmp_path: Path) -> None:
    job = make_job(tmp_path, Job(read={2: 30 * MS}, ended={1: 30}))
    (job / "rank-1" / "collectives.arrows").unlink()
    found = merge([job])
    assert found.recorded
    assert found.verdict.rank == 2
    assert [row.waited_ns for row in found.ranks][1:3] == [0, 0]
    assert_sums(found)


def test_meetings_that_were_not_recorded_are_inferred_and_say_so(tmp_path: Path) -> None:
    found = merged(tmp_path, Job(read={2: 30 * MS}, recorded=False))
    assert (found.verdict.rank, found.verdict.cause) == (2, "storage-latency")
    assert [doubt.name for doubt in found.doubts] == ["inferred-meetings"]
    assert_sums(found)
    for row in found.ranks:
        if row.rank != 2:
            assert row.ledger_ns["rank:2:storage"] == pytest.approx(28 * MS * 55, rel=0.05)


def test_parts_from_several_directories_are_one_job(tmp_path: Path) -> None:
    make_job(tmp_path / "whole", LATE)
    for node, ranks in (("a", (0, 1)), ("b", (2, 3))):
        (tmp_path / node).mkdir()
        for rank in ranks:
            (tmp_path / "whole" / f"rank-{rank}").rename(tmp_path / node / f"rank-{rank}")
    assert merge([tmp_path / "a", tmp_path / "b"]).verdict.rank == 2
    alone = merge([tmp_path / "b"])
    assert [doubt.name for doubt in alone.doubts] == ["missing-ranks"]
    assert alone.status == "partial"
    with pytest.raises(TraceError, match=r"rank 0 is in .*a.rank-0 and in .*a.rank-0"):
        find_parts([tmp_path / "a", tmp_path / "a" / "rank-0"])


def test_parts_of_two_jobs_are_not_mixed(tmp_path: Path) -> None:
    for job, ranks in (("one", (0, 1)), ("two", (2, 3))):
        make_job(tmp_path / job, LATE)
        (tmp_path / job / "job.json").write_text(json.dumps({"run_id": job}))
        for rank in {0, 1, 2, 3} - set(ranks):
            (tmp_path / job / f"rank-{rank}").rename(tmp_path / f"{job}-{rank}")
    with pytest.raises(TraceError, match="different jobs"):
        find_parts([tmp_path / "one", tmp_path / "two"])


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({2: {"job": {"run_id": "two"}}}, "are of different jobs"),
        ({3: {"restart": 1, "job": {"run_id": "two"}}}, "are of different attempts of a job"),
    ],
)
def test_bare_parts_are_known_by_what_they_say_themselves(
    tmp_path: Path, told: dict[int, dict[str, object]], problem: str
) -> None:
    usual = {rank: {"job": {"run_id": "one"}, "restart": 0} | told.get(rank, {}) for rank in range(4)}
    job = make_job(tmp_path, Job(told=usual, steps=10))
    with pytest.raises(TraceError, match=problem):
        merge([job / f"rank-{rank}" for rank in range(4)])
    assert len(merge([job / "rank-0", job / "rank-1"]).ranks) == 2


@pytest.mark.usefixtures("of_any_length")
def test_a_job_that_began_again_says_where_the_rest_is(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", Job(steps=40))
    for attempt in (1, 2, 10):
        make_job(job / f"restart-{attempt}", Job(ranks=2, steps=40))
    (job / "restart-11").mkdir()
    (doubt,) = merge([job]).doubts
    assert (doubt.name, doubt.remedy) == (
        "restarts",
        f"see the last with `pipeprof report {job}/restart-10`",
    )
    assert "of 4" in doubt.problem
    assert not merge([job / "restart-1"]).doubts
    for rank in range(4):
        (job / f"rank-{rank}").rename(tmp_path / f"rank-{rank}")
    with pytest.raises(TraceError, match="restart-10"):
        load(job)


def test_a_job_is_no_run_and_says_how_to_see_it(tmp_path: Path) -> None:
    make_job(tmp_path / "job", Job(ranks=2, steps=10))
    with pytest.raises(TraceError, match="holds the runs of 2 ranks") as error:
        load(tmp_path / "job")
    assert "pipeprof report" in str(error.value)
    with pytest.raises(TraceError, match="no run"):
        merge([tmp_path])


def test_segments_cover_the_path_between_the_meetings(tmp_path: Path) -> None:
    run = load(make_job(tmp_path, LATE) / "rank-2")
    found = attribute(run)
    assert found is not None
    met = run.table("collectives")
    came, left = (met[name].to_numpy() for name in ("start_ns", "end_ns"))
    spent = segments(found.path, came, left).sum(axis=1)
    assert spent[LATE.warmup + 1 :] == pytest.approx((came[1:] - left[:-1])[LATE.warmup :])
    assert (spent[: LATE.warmup] == 0).all()


@pytest.mark.parametrize(
    ("meta", "cores"),
    [
        ({}, 8),
        ({"local_world_size": 4}, 2),
        ({"local_world_size": 4, "own_cores": True}, 8),
        ({"local_world_size": 2, "machine": MachineMeta(64, 4.0, 4.0)}, 2),
    ],
)
def test_the_ranks_of_a_node_share_its_cores(meta: dict[str, object], cores: float) -> None:
    assert cores_of(replace(RunMeta(machine=MachineMeta(cpu_count=8, usable_cores=8)), **meta)) == cores


def test_ranks_are_counted_by_machine_where_no_launcher_has_told(tmp_path: Path) -> None:
    cores = {"local_world_size": None, "machine": {"cpu_count": 8, "usable_cores": 8}}
    job = Job(hosts={3: "second"}, told=dict.fromkeys(range(4), cores), steps=40)
    facts = [row.facts for row in merged(tmp_path, job).ranks]
    assert [one and one.cores for one in facts] == pytest.approx([8 / 3, 8 / 3, 8 / 3, 8])


def test_the_page_and_the_dictionary_say_the_same(tmp_path: Path) -> None:
    found = merged(tmp_path, LATE)
    page = report.write(found, tmp_path / "report.html").read_text()
    assert found.verdict.statement.headline in page.replace("\xa0", " ")
    assert "rank 2&#39;s storage" in page
    said = json.loads(json.dumps(found.as_dict()))
    assert said["verdict"]["rank"] == 2
    assert said["ranks"][0]["ledger_ns"] == found.ranks[0].ledger_ns
    assert all(len(line) <= 80 for line in report.lines(found))


def test_a_damaged_identity_of_a_job_is_none(tmp_path: Path) -> None:
    make_job(tmp_path / "job", Job(ranks=2, steps=30))
    (tmp_path / "job" / "job.json").write_text("[" * 100_000)
    assert sorted(find_parts([tmp_path / "job"])) == [0, 1]
