"""The page of a large job: the slow ranks one by one, the others as a distribution."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeprof.analyse.job.merge import merge
from pipeprof.analyse.job.merged import JobAnalysis
from pipeprof.report import jobs, spread
from tests.analyse.jobs import Job, make_job
from tests.factory import MS


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> JobAnalysis:
    """A job of 1,024 ranks, rank 700 the late one: the rows of four ranks, many times over."""
    small = merge([make_job(tmp_path_factory.mktemp("job"), Job(read={2: 30 * MS}))])
    usual, late = small.ranks[0], small.ranks[2]
    ranks = [replace(late if rank == 700 else usual, rank=rank) for rank in range(1024)]
    return replace(small, ranks=ranks, world_size=1024)


def test_the_page_has_the_slow_ones_first_and_all_as_a_distribution(
    large: JobAnalysis, tmp_path: Path
) -> None:
    text = jobs.write(large, tmp_path / "report.html").read_text()
    assert text.count("<tr>") < 120, "nobody reads a thousand rows"
    first = re.search(r"<caption>The ranks</caption>.*?<tbody>\s*<tr><th[^>]*>(\d+)", text, re.S)
    assert first is not None
    assert first[1] == "700"
    assert "All ranks" in text
    assert "of 1,024" in text


def test_the_distribution_names_the_farthest(large: JobAnalysis) -> None:
    table = spread.table(large.ranks)
    by_name = {row.cells[0]: row.cells[1:] for row in table.rows}
    assert by_name["delayed others"][-1] == "700"
    assert by_name["delayed others"][:4] == ["0 s"] * 4
    assert by_name["rank wait"][0] == "0%"
    said = " ".join(jobs.lines(large))
    assert "1012 more ranks" in said
    assert "All ranks: data wait" in said
    rows = spread.chart(large.ranks)["data"]["values"]
    assert {row["what"] for row in rows} == {"data wait", "rank wait"}
    assert sum(row["ranks"] for row in rows) == 2 * 1024


def test_a_small_job_has_every_rank_in_order(tmp_path: Path) -> None:
    merged = merge([make_job(tmp_path / "job", Job())])
    text = jobs.write(merged, tmp_path / "report.html").read_text()
    assert "All ranks" not in text
    assert re.findall(r"<tr><th[^>]*>(\d)<", text)[:4] == ["0", "1", "2", "3"]
