"""One account of a run: page, terminal, JSON, exports and comparison say the same numbers of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html import unescape
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeprof import units
from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.differences import figures
from pipeprof.analyse.job.merge import merge
from pipeprof.analyse.sentence import of_owner
from pipeprof.analyse.verdict import WIDE_INTERVAL
from pipeprof.devices import STORAGE
from pipeprof.errors import InconclusiveError
from pipeprof.measure.bench.run import run as measured
from pipeprof.record.directories import part_of
from pipeprof.report import jobs
from pipeprof.report.export import perfetto, tensorboard
from pipeprof.report.page import contents, html, workers
from pipeprof.report.page.section import Section
from pipeprof.report.text import terminal
from pipeprof.report.text.markdown import escaped, markdown
from pipeprof.report.wording import advice, view
from pipeprof.simulate.forecast import Forecast
from pipeprof.vocabulary import fixes, owners
from tests.analyse.jobs import Job, make_job
from tests.factory import MS, Counted, Plan, S, Sampled, make_run
from tests.report.export.test_tensorboard import scalars
from tests.report.page.test_html import Page
from tests.report.page.test_timeline import column
from tests.scenario.test_shipped import CELLS, short
from tests.simulate.test_replay_ledger import outside
from tests.timing import OtherPrograms, Timing

protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")

DATA = "/home/me/project/data.py"
SSD = STORAGE["sata-ssd"]
SLOW = {"decode": 60 * MS, "collate": 2 * MS}
QUICK = {"decode": 2 * MS}
WRAPPER = Plan(accelerator="none", main=40 * MS, compute=0, copy=0, batches=40)
"""A loop whose body takes 40 ms, of which nothing but the loop's own side is seen."""


def cuda(directory: Path, stages: dict[str, int], device_wait: int) -> Path:
    plan = replace(WRAPPER, workers=1, stages=stages, device_wait=device_wait)
    return make_run(directory, plan, accelerator={"kind": "cuda", "name": "made"})


OPENS = ((DATA, 41, "Scenes.__getitem__"), ("/usr/lib/python3.11/zipfile.py", 1302, "ZipFile.__init__"))
REOPENED = Plan(
    batches=80,
    stages={"getitem": 80 * MS, "collate": 2 * MS},
    lines=(
        Sampled("getitem", OPENS, 6 * S, worker=0),
        Sampled("getitem", ((DATA, 44, "Scenes.__getitem__"),), S, worker=1),
        Sampled("main", (("/home/me/project/train.py", 9, "main"),), S),
    ),
    counters=(
        Counted("open.count", 80 * 32 + 2),
        Counted("open.repeated", 80 * 32),
        Counted("open.repeated_parse_ns", 5 * S),
    ),
)
"""A run whose mechanism and lines are seen."""


NFS = {"storage": {"tier": "network", "name": "nfs", "emulated": False, "model": None}}
LATE = Job(read={2: 30 * MS}, told={rank: {**NFS, "emulated": ["accelerator"]} for rank in range(4)})
"""Four ranks, the third of which reads for longer, from storage that no model tells the speed of."""


def shipped(name: str, path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPEPROF_CACHE", str(path.parent / "cache"))
        return measured(short(CELLS[name]), path)


RUNS: dict[str, Callable[[Path], Path]] = {
    "mechanism and lines": lambda path: make_run(path, REOPENED),
    "emulated": lambda path: make_run(path, Plan(batches=80, stages=SLOW, disk=SSD, jitter=0.1)),
    "emulated and ready": lambda path: make_run(path, Plan(batches=80, workers=4, stages=QUICK, disk=SSD)),
    "CUDA, waits masked": lambda path: cuda(path, {"decode": 60 * MS}, 0),
    "CUDA, some felt": lambda path: cuda(path, {"decode": 90 * MS}, 30 * MS),
    "two loaders": lambda path: make_run(
        path,
        Plan(batches=60, epochs=3, stages=QUICK, workers=4, disk=SSD, pause_ns=200 * MS),
        after=Plan(batches=20, warmup=0, stages=SLOW, workers=1, disk=SSD, batch_size=16),
    ),
    "no workers, three epochs": lambda path: make_run(
        path, replace(WRAPPER, workers=0, epochs=3, stages={"decode": 5 * MS}, pause_ns=6 * S)
    ),
    "the rank that three others wait for": lambda path: part_of(make_job(path, LATE), 2),
    "a rank that waits for another": lambda path: part_of(make_job(path, LATE), 0),
    "abstains": lambda path: make_run(path, Plan(batches=15, stages=SLOW, disk=SSD)),
}


SHIPPED: dict[str, Callable[[Path], Path]] = {
    name: partial(shipped, name) for name in CELLS if "," not in name
}
"""One cell of a matrix is as good as the others, and takes as long."""


class Recorded(NamedTuple):
    """A run, and the cores that other programs had while it was measured: a made run is not."""

    analysis: Analysis
    taken_cores: float


@pytest.fixture(
    scope="module", params=[*RUNS, *(pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED)]
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    others = OtherPrograms()
    analysis = load((RUNS | SHIPPED)[request.param](tmp_path_factory.mktemp("truth") / "run"))
    return Recorded(analysis, others.cores() if request.param in SHIPPED else 0.0)


@pytest.fixture(scope="module")
def run(recorded: Recorded) -> Analysis:
    return recorded.analysis


@pytest.fixture(scope="module")
def forecast(run: Analysis) -> Forecast:
    return Forecast(run)


@pytest.fixture(scope="module")
def page(forecast: Forecast) -> dict[str, Section]:
    said = view.view_of(forecast.analysis.run, forecast.verdict)
    return {part.id: part for part in contents.sections(forecast, said)}


def stalled(run: Analysis) -> float:
    """The stall share as JSON has it."""
    share = run.verdict.as_dict()["verdict"]["stall_share"]
    assert isinstance(share, float)
    return share


def test_json_is_the_ledger(run: Analysis) -> None:
    said = run.verdict.as_dict()
    waited = sum(ns for owner, ns in said["ledger_ns"].items() if owners.is_stall(owner))
    assert sum(said["ledger_ns"].values()) == sum(said["path_ns"].values()) == said["wall_ns"]
    assert said["verdict"]["stall_share"] == waited / said["wall_ns"]
    assert said["utilization"] == said["ledger_ns"]["accelerator"] / said["wall_ns"]


def test_the_first_screen_and_the_terminal_have_its_number(run: Analysis, forecast: Forecast) -> None:
    said = view.view_of(run.run, forecast.verdict)
    text = html.render(forecast, with_source=False).replace("\u00a0", " ")
    screen = unescape(text[text.index("<h1") : text.index("</section>")])
    printed = StringIO()
    terminal.show(forecast, file=printed)
    line = view.stall_line(said)
    assert f'<span class="number">{units.percent(stalled(run))}</span>' in screen
    assert f"{units.percent(stalled(run))} of {units.duration(said.wall_ns)}" in line or stalled(run) == 0
    for words in (run.verdict.statement.headline, line):
        assert words in screen
        assert words in " ".join(printed.getvalue().split())


def test_every_output_has_the_same_words(run: Analysis, forecast: Forecast) -> None:
    verdict, statement = forecast.verdict, forecast.verdict.statement
    page, printed = Page(html.render(forecast)).text, StringIO()
    terminal.show(forecast, file=printed)
    unlabelled = re.sub(r"^(Verdict|Why|Line|Next) +", "", printed.getvalue(), flags=re.MULTILINE)
    told = " ".join(unlabelled.split())
    said = verdict.as_dict()["verdict"]
    assert said["sentence"] == statement.text == str(run.verdict)
    words = [statement.headline, statement.evidence]
    if verdict.fix != "none":
        words += [fixes.BY_WORD[verdict.fix].do, said["warning"] or ""]
    if verdict.shown is not None:
        label = verdict.shown.mechanism.label
        words += [f"{label[:1].upper()}{label[1:]}"]
    issue = markdown(forecast)
    for text in words:
        assert text.replace("`", "") in page and text in told
    assert escaped(statement.headline) in issue and escaped(statement.evidence) in issue
    places = [f"{line['file']}:{line['line']}" for line in said["hot"]]
    assert all(f"{place} in" in page for place in places)
    for line in verdict.hot[:1]:
        line_says = f"{units.percent(line.share)} {of_owner(line)}, at {places[0]} in"
        assert all(line_says in words for words in (page, told)) and escaped(line_says) in issue
    cards = advice.cards(forecast, view.view_of(run.run, verdict))
    assert bool(cards) == (verdict.fix != "none")
    assert not cards or cards[0].get("warning") == said["warning"]


def test_the_bar_is_the_ledger(run: Analysis, page: dict[str, Section]) -> None:
    (chart,) = page["where"].charts
    values = [row for row in chart.spec["data"]["values"] if row["view"] == "average step"]
    waited = sum(row["end"] - row["start"] for row in values if "computing" not in row["label"])
    assert run.ledger is not None
    idle = 1 - run.ledger.ledger_ns["accelerator"] / run.ledger.window.wall_ns
    assert waited == pytest.approx(idle, abs=1e-9)


def test_the_chart_over_time_is_the_ledger(run: Analysis, page: dict[str, Section]) -> None:
    if said := dict(page["when"].facts).get("The whole run"):  # nothing varies, and none is drawn
        assert stalled(run) < 0.01 and said == "100% computing, all along"
        return
    chart = next(chart for chart in page["when"].charts if chart.name == "when")
    assert f"Waiting for data took {units.percent(stalled(run))} of" in chart.spec["description"]


def test_waits_are_told_with_what_was_felt_of_them(run: Analysis, page: dict[str, Section]) -> None:
    """No zero stall beside steps that all waited, with nothing said about it."""
    said, counts = page["waits"].how, run.counts
    assert counts is not None
    ready = re.match(r"(\d+) of (\d+) steps found", said)
    if ready and stalled(run) < 0.02:
        assert ready[1] == ready[2] or "was masked" in said
    if counts.masked_wait_ns:
        assert "was masked" in said
    if not ready:
        assert said.startswith("The loop made the batches")
    chart = next((chart for chart in page["when"].charts if chart.name == "next"), None)
    if chart is not None and ready:
        shares = [row["value"] for row in chart.spec["data"]["values"]]
        assert (np.mean(shares) == 1) == (ready[1] == ready[2])


def test_the_canvas_draws_as_waiting_what_the_device_felt(run: Analysis) -> None:
    packed, t = workers.packed(run), run.timeline
    assert packed is not None and packed["kept"] == len(t)
    assert packed["colours"]["wait"]["label"] == "waiting for data"
    felt, take = (column(packed["batches"][name], "<u4", len(t)).astype(int) for name in ("felt", "take"))
    drawn = (take - felt) * packed["unit_ns"]
    assert np.abs(drawn - (t.wait_ns - t.masked_wait_ns)).max() <= packed["unit_ns"]
    if stalled(run) == 0:
        assert drawn[t.measured].max() <= packed["unit_ns"]
    assert packed["masked"] == bool(t.masked_wait_ns.any())


def test_a_device_that_was_timed_is_not_called_unobserved(run: Analysis, forecast: Forecast) -> None:
    measured, notes = (
        run.verdict.measured,
        " ".join(map(str, forecast.demands.notes if forecast.demands else ())),
    )
    timed = run.timeline.device_timed
    assert timed or measured.utilization_kind == "loop-body"
    assert ("accelerator times" in measured.not_observed) != timed
    assert not (timed and "no device clock" in notes)


def test_the_terminal_says_how_much_of_the_waiting_was_masked(run: Analysis, forecast: Forecast) -> None:
    printed, counts = StringIO(), run.counts
    terminal.show(forecast, file=printed)
    line = " ".join(printed.getvalue().partition("Waits  ")[2].split())
    assert counts is not None and counts.wait is not None
    if counts.masked_share:
        assert f"{units.percent(counts.masked_share)} of the waiting masked" in line
    else:
        assert "masked" not in line


def test_perfetto_has_its_stall_and_its_pauses(run: Analysis, tmp_path: Path) -> None:
    trace = protos.Trace()
    trace.ParseFromString(perfetto.write(run, tmp_path / "t").read_bytes())
    names = {
        packet.track_descriptor.uuid: packet.track_descriptor.name
        for packet in trace.packet
        if packet.HasField("track_descriptor")
    }
    points: dict[str, list[tuple[int, float]]] = {}
    for packet in trace.packet:
        event = packet.track_event
        if packet.HasField("track_event") and event.type == event.TYPE_COUNTER:
            points.setdefault(names[event.track_uuid], []).append(
                (packet.timestamp, event.double_counter_value)
            )
    assert run.attribution is not None
    window = run.attribution.window
    assert run.ledger is not None
    for name, ns in (
        ("waiting for data", run.ledger.stall_ns),
        ("computing", run.ledger.ledger_ns["accelerator"]),
    ):
        at, share = zip(*points[name], strict=True)
        spent = np.diff([*at, window.end_ns]) @ np.array(share) / 100
        assert spent == pytest.approx(ns, abs=1e-6 * window.wall_ns)
    outside = run.verdict.measured.outside
    assert outside is not None
    assert ("between the loops" in names.values()) == (len(window.outside[0]) > 0)


def test_tensorboard_has_its_stall(run: Analysis, tmp_path: Path) -> None:
    told = scalars(tensorboard.write(run, tmp_path / "board"))
    assert run.attribution is not None and run.ledger is not None
    window = run.attribution.window
    span = window.end_ns - window.start_ns
    mean = float(np.mean([value for _, value in told["stall/waiting for data"]]))
    assert mean * span == pytest.approx(run.ledger.stall_ns, abs=1e-3 * window.wall_ns)
    speeds = [value for _, value in told["speed/samples per second"]]
    rate = run.verdict.measured.throughput_samples_per_s
    assert min(speeds) <= rate * 1.01 and max(speeds) >= rate * 0.99


def test_compare_has_its_stall(run: Analysis) -> None:
    found = figures(run)
    assert found["stall_share"].value == stalled(run)
    assert found["utilization"].value == run.verdict.measured.utilization


def test_epochs_sum_to_the_window(run: Analysis) -> None:
    assert run.attribution is not None and run.ledger is not None
    passes = run.attribution.epochs()
    assert sum(ledger.window.wall_ns for _, ledger in passes) == run.ledger.window.wall_ns
    assert sum(ledger.stall_ns for _, ledger in passes) == pytest.approx(run.ledger.stall_ns, abs=100)


@pytest.mark.parametrize(
    "recorded",
    [*RUNS, *(pytest.param(name, marks=pytest.mark.heavy) for name in SHIPPED)],  # by hand, when it is quiet
    indirect=True,
)
def test_its_replay_owes_the_same(recorded: Recorded, timing: Timing) -> None:
    if recorded.analysis.verdict.detail == WIDE_INTERVAL:
        pytest.skip("the run itself says that its waiting may be anywhere")
    with timing.compared(recorded.taken_cores):
        try:
            assert outside(recorded.analysis.run) == {}
        except InconclusiveError as error:  # a busy machine takes so few steps that nothing is predicted
            raise AssertionError(error.problem) from error


def made(name: str, path: Path) -> Analysis:
    return load(RUNS[name](path / "run"))


def test_pauses_stand_beside_the_verdict(tmp_path: Path) -> None:
    found = made("no workers, three epochs", tmp_path)
    outside, measured = found.verdict.measured.outside, found.verdict.measured
    assert outside is not None and measured.wall_ns is not None
    assert outside.pauses_ns == pytest.approx(2 * 6 * S, rel=0.01)
    assert measured.wall_ns == pytest.approx((3 * 40 - 5) * 45 * MS, rel=0.02)
    assert found.verdict.cause == "main" or found.verdict.band == "moderately"
    said = view.view_of(found.run, found.verdict)
    assert view.outside_line(said) == "Not counted: 12.0 s between the loops."
    assert "startup" not in (measured.ledger_ns or {})


def test_several_loaders_have_one_that_is_named(tmp_path: Path) -> None:
    """The evaluation waits most: cause, settings and fix are its, though it is second and smaller."""
    path = RUNS["two loaders"](tmp_path / "run")
    found = load(path)
    assert found.facts is not None
    assert (found.verdict.measured.loader.name, found.facts.workers) == ("val", 1)  # type: ignore[union-attr]
    forecast = Forecast(found)
    assert forecast.demands is not None
    assert (forecast.demands.measured.workers, forecast.demands.measured.batch_size) == (1, 16)
    said = view.view_of(found.run, forecast.verdict)
    assert said.chips[:3] == ("1 worker", "prefetch 2", "batch 16")
    assert "one of 2 loaders" in said.chips
    assert "of the loader val" in view.loader_line(said) and "--loader train" in view.loader_line(said)


@pytest.mark.parametrize("asked", ["train", "0"])
def test_another_loader_is_shown_when_asked_for(tmp_path: Path, asked: str) -> None:
    path = RUNS["two loaders"](tmp_path / "run")
    whole, train, val = load(path), load(path, asked), load(path, "val")
    assert train.facts is not None and train.facts.workers == 4
    parts = [one.verdict.measured for one in (train, val)]
    assert sum(one.steps for one in parts) == whole.verdict.measured.steps
    assert sum(one.wall_ns or 0 for one in parts) == whole.verdict.measured.wall_ns
    assert train.verdict.stall_share is not None and val.verdict.stall_share is not None
    assert train.verdict.stall_share < 0.05 < val.verdict.stall_share
    assert train.verdict.measured.other_loaders == ()


@pytest.mark.parametrize("job", [Job(), LATE], ids=["alike", "one is late"])
def test_a_job_has_the_same_words_and_numbers_everywhere(tmp_path: Path, job: Job) -> None:
    merged = merge([make_job(tmp_path / "job", job)])
    verdict, said = merged.verdict, merged.as_dict()
    page = Page(jobs.write(merged, tmp_path / "job.html").read_text()).text
    told = " ".join(" ".join(jobs.lines(merged)).split())
    assert verdict.sentence == said["verdict"]["sentence"]
    lost = f"lost {units.percent(said['verdict']['lost_share'])} of their time"
    rate = f"{units.sample_rate(said['throughput_samples_per_s'])} in all"
    for text in (verdict.statement.headline, verdict.statement.evidence, lost, rate):
        assert text.replace("`", "") in page and text in told
    assert len(said["ranks"]) == 4
    for row in said["ranks"]:
        waited = units.percent(row["waited_ns"] / row["wall_ns"])
        shares = f"{units.percent(row['stall_share'])} {waited} {units.duration(row['caused_ns'])}"
        assert f"{row['rank']} first {row['steps']} {shares}" in told
        assert shares in page


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_says_of_itself_what_its_job_says_of_it(tmp_path: Path, rank: int) -> None:
    directory = make_job(tmp_path / "job", LATE)
    row = next(row for row in merge([directory]).as_dict()["ranks"] if row["rank"] == rank)
    own = load(part_of(directory, rank)).verdict.as_dict()
    assert (own["verdict"]["stall_share"], own["wall_ns"]) == (row["stall_share"], row["wall_ns"])
    assert own["throughput_samples_per_s"] == row["throughput_samples_per_s"]
    assert own["ledger_ns"]["accelerator"] == row["ledger_ns"]["accelerator"]
