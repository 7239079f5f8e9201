"""The lesson's page, from made runs: what it says, also of what is missing, and what it never does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from pipeprof.errors import TraceError
from pipeprof.lesson import page as lesson
from pipeprof.lesson.claims.claim import texts
from pipeprof.lesson.measurements import lesson_directory
from pipeprof.lesson.results import LessonRun, Results, read
from pipeprof.scenario import load
from tests.lesson.made import add_results, make_lesson

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>{{7*7}}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_lesson(tmp_path_factory.mktemp("lesson") / "whole")
    add_results(directory, cuda=True)
    return directory


@pytest.fixture(scope="module")
def results(whole: Path) -> Results:
    return read(whole)


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return lesson.render(results)


def text_of(page: str) -> str:
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.S)
    return unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")


def test_every_claim_has_an_answer_a_chart_a_reason_and_something_to_try(results: Results) -> None:
    for number, build in enumerate(lesson.CLAIMS, 1):
        told = build(results)
        assert told.number == number
        assert re.search(r"\d", told.answer), told.answer
        assert not told.answer.startswith("Not observed")
        assert told.charts, number
        assert all(chart.table and chart.table.rows for chart in told.charts), number
        assert told.why
        assert told.tries
        assert told.short


def test_figures_are_said_with_their_unit_and_what_they_are(page: str) -> None:
    said = text_of(page)
    assert "emulated: hard disk, accelerator" in said
    assert "measured: the reads" in said
    assert "simulated: everything called predicted" in said
    assert "66.0 times" in said  # 660 ms on the CPU over 10 ms on the GPU
    assert "3.00 times" in said
    assert "3.25" in said
    assert "no compiler" in said


def test_a_hard_disk_waits_and_workers_on_an_ssd_do_not(results: Results) -> None:
    runs = results.runs
    slow, fast = runs["1_hdd"].stall, runs["4_workers-tier=ssd,workers=4,prefetch=4"].stall
    assert slow is not None
    assert fast is not None
    assert slow > 0.6
    assert fast < 0.05


def test_workers_are_counted_in_every_place_for_the_data(results: Results) -> None:
    told = lesson.workers(results)
    assert [chart.name for chart in told.charts] == [
        f"claim4_{tier}" for tier in ("hdd", "ssd", "nvme", "network", "ram")
    ]
    assert len(told.more) == 4
    assert told.more[2].startswith("Network storage: waiting")


def test_the_cheapest_cures_are_the_first_place_under_the_target(page: str) -> None:
    said = " ".join(text_of(page).split())
    assert "The cheapest cures that bring the waiting under 5.0%: SSD, 2 workers, prefetch 2" in said


def test_without_any_run_each_claim_says_what_is_missing(tmp_path: Path) -> None:
    directory = make_lesson(tmp_path / "none", only=("nothing",))
    results = read(directory)
    for build in lesson.CLAIMS:
        told = build(results)
        assert "Not observed" in told.answer, told.answer
        assert not told.charts
    assert "not observed" in text_of(lesson.render(results)).lower()


def test_why_a_run_is_missing_is_said(tmp_path: Path) -> None:
    error = "the data set\ndoes not fit in memory"
    directory = make_lesson(tmp_path / "some", only=("2_",), errors={"3_decoded": error})
    said = text_of(lesson.render(read(directory)))
    assert "in RAM, decoded: not observed (the data set does not fit in memory)." in said


def test_no_gpu_is_not_observed_and_never_zero(tmp_path: Path) -> None:
    directory = make_lesson(tmp_path / "cpu", only=("1_",))
    add_results(directory)
    said = text_of(lesson.render(read(directory)))
    assert "The GPU's side was not observed: there is no GPU here." in said
    assert not re.search(r"\b0 (times|ms|s)\b", said)


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    missed, errors = {HOSTILE: [HOSTILE]}, {"5_copy_none": HOSTILE}
    directory = make_lesson(tmp_path / "hostile", only=("1_", "2_"), missed=missed, errors=errors)
    add_results(directory, name=HOSTILE, way=HOSTILE)
    run = directory / "1_hdd" / "run.json"
    meta = json.loads(run.read_text())
    meta["machine"]["cpu_name"] = HOSTILE
    run.write_text(json.dumps(meta))
    page = lesson.render(read(directory))
    assert "<img src=x" not in page
    assert "49" not in re.findall(r"onerror=alert\(1\)\D*(\d+)", text_of(page))
    assert "onerror=alert(1)" in text_of(page)
    assert page.count("</script>") == page.count("<script")


def test_a_run_that_is_torn_or_unreadable_is_left_out(tmp_path: Path) -> None:
    directory = make_lesson(tmp_path / "torn", only=("1_", "2_"))
    (directory / "2_nvme" / "run.json").write_text("{")
    assert set(read(directory).runs) == {"1_hdd", "2_ssd"}


def test_results_of_another_shape_are_taken_for_none(tmp_path: Path) -> None:
    directory = make_lesson(tmp_path / "shape", only=("1_",))
    for name in ("7_networks", "8_two_layer", "10_tune"):
        (directory / f"{name}.json").write_text("[1, 2")
    assert "Not observed: it was not run." in text_of(lesson.render(read(directory)))


def test_no_lesson_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no lesson"):
        lesson.write(tmp_path, tmp_path / "index.html")
    assert not list(tmp_path.iterdir())


def test_paths_of_this_machine_are_not_on_the_page(whole: Path, page: str) -> None:
    assert str(whole) not in page
    assert "pipeprof predict DIR/1_hdd" in text_of(page)


@pytest.mark.slow
def test_the_page_needs_no_torch(tmp_path: Path) -> None:
    some = make_lesson(tmp_path / "some", only=("1_",))
    add_results(some)
    code = (
        "import sys; from pathlib import Path; from pipeprof.lesson import page; "
        f"page.render(page.read(Path({str(some)!r}))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


COMMANDS = [command for one in texts()["claim"] for _, command in one["try"]]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pipeprof run")])
def test_what_the_reader_is_told_to_run_can_be_run(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = command.replace("DIR", str(tmp_path)).replace("FILE", str(tmp_path / "file"))
    words = shlex.split(command)
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert load(lesson_directory().parent.parent / words[2], sets)


def test_a_rate_that_was_not_observed_has_no_full_speed(results: Results) -> None:
    run: LessonRun = results.runs["1_hdd"]
    assert run.full_rate is not None
    assert run.rate is not None
    assert run.full_rate > run.rate
