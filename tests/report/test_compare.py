from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeprof.analyse import differences, gates
from pipeprof.analyse.analysis import Analysis, load
from pipeprof.analyse.differences import MEASURES, Difference, Figure, Measure, compare, difference
from pipeprof.cli import cli
from pipeprof.cli.show import rerun as reruns
from pipeprof.errors import InconclusiveError, MeasureError, PipeprofError
from pipeprof.report import compare as shown
from pipeprof.report.wording.command import again
from tests.factory import MS, Plan, loader_meta, make_run
from tests.report.page.hostile import SCRIPT
from tests.report.page.test_html import Page

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "scripts"
Make = Callable[..., Analysis]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Runs of one scenario that differ by their seed, and by what is planted."""

    def made(seed: int, decode: int = 60 * MS, **meta: Any) -> Analysis:
        stages = {"read": 30 * MS, "decode": decode, "collate": 4 * MS}
        plan = Plan(batches=300, workers=4, stages=stages, jitter=0.1, seed=seed, spans_every=0)
        return load(make_run(tmp_path / f"run{seed}", plan, **meta))

    return made


def test_the_same_again_is_no_difference_beyond_noise(make: Make) -> None:
    found = compare([make(1), make(2)])[0]
    assert all(one.says == "no difference beyond noise" for one in found.differences)


def test_slower_decoding_is_worse_and_named(make: Make) -> None:
    found = compare([make(1), make(2, decode=90 * MS)])[0]
    rate, stall = found.differences[:2]
    assert rate.says == stall.says == "worse"
    assert rate.low is not None and rate.high is not None and rate.low < (rate.value or 0) < rate.high < 0
    largest = max(found.owners, key=lambda one: one.value or 0)
    assert largest.measure.key == "decode" and largest.says == "more"


def test_the_difference_is_of_the_right_size(make: Make) -> None:
    base, other = make(1), make(2, decode=90 * MS)
    rate = compare([base, other])[0].differences[0]
    assert rate.relative == pytest.approx((4 + 30 + 60) / (4 + 30 + 90) - 1, abs=0.05)


def test_the_same_work_that_takes_more_cpu_is_told_whatever_the_loop_waited(make: Make) -> None:
    base, other = make(1), make(2, decode=90 * MS)
    cpu = compare([base, other])[0].differences[-1]
    assert cpu.measure.label == "CPU of making a batch" and cpu.says == "worse"
    assert cpu.relative == pytest.approx((4 + 90) / (4 + 60) - 1, abs=0.05)
    assert base.attribution is not None
    base.attribution.counters.cpu[:] = np.nan
    assert compare([base, other])[0].differences[-1].says == "not observed"


def test_other_data_or_another_accelerator_is_refused_unless_forced(make: Make) -> None:
    base = make(1)
    for meta in (
        {"data": {"format": "tensor_files", "samples": 10}},
        {"accelerator": {"kind": "cuda", "name": "H100"}},
    ):
        other = make(hash(str(meta)) % 1000 + 10, **meta)
        with pytest.raises(PipeprofError, match="cannot be compared"):
            compare([base, other])
        assert compare([base, other], force=True)[0].unlike


def test_too_few_runs_or_steps_are_refused(make: Make, odd: dict[str, Analysis]) -> None:
    with pytest.raises(PipeprofError, match="one run alone"):
        compare([make(1)])
    with pytest.raises(InconclusiveError, match="no measured step"):
        compare([make(2), odd["bare"]])


def test_each_form_says_the_same(make: Make, tmp_path: Path) -> None:
    found = compare([make(1), make(2, decode=90 * MS)])
    text = "\n".join(line.plain for line in shown.lines(found))
    assert all(len(line) <= 80 for line in text.splitlines())
    markdown = shown.markdown(found)
    data = json.loads(json.dumps(shown.as_data(found)))
    page = Page(shown.write_html(found, tmp_path / "compare.html").read_text())
    change = shown.change(found[0].differences[0])
    assert change in text and change in markdown and change in page.text
    assert data[0]["differences"][0]["difference"] == found[0].differences[0].value
    assert "emulated" in text and "emulated" in markdown and "emulated" in page.text


def beside(analysis: Analysis, other_cores: float) -> Analysis:
    """The run as if other programs had kept so many of two cores busy."""
    assert analysis.facts is not None
    return replace(analysis, facts=replace(analysis.facts, cores=2.0, other_cores=other_cores))


def test_what_other_programs_took_is_no_fair_comparison(make: Make, tmp_path: Path) -> None:
    base, other = make(1), make(2, decode=90 * MS)
    assert compare([beside(base, 0.2), beside(other, 0.3)])[0].unfair == ()
    found = compare([beside(base, 0.2), beside(other, 1.7)])
    says = "other programs kept 0.200 cores busy in the first run, 1.70 in the second"
    assert found[0].unfair == (says,)
    page = Page(shown.write_html(found, tmp_path / "compare.html").read_text())
    text = " ".join(" ".join(line.plain for line in shown.lines(found)).split())
    assert says in text and says in shown.markdown(found) and says in page.text
    assert "but not a fair comparison" in shown.headline(found[0])


def test_an_unfair_comparison_is_no_verdict(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = beside(make(1), 0.2), beside(make(2, decode=90 * MS), 1.7)
    [gate] = gates.check(other, None, None, base, 0.05)
    assert gate.passed is None and "no fair comparison" in gate.says
    [forced] = gates.check(other, None, None, base, 0.05, force=True)
    assert forced.passed is False
    runs = {"base": base, "other": other}
    monkeypatch.setattr("pipeprof.cli.show.compare.read", lambda path: runs[path.name])
    paths = [str(analysis.run.directory) for analysis in (base, other)]
    monkeypatch.setattr("pipeprof.cli.show.compare.with_newest", lambda _: (Path("base"), Path("other")))
    again = " --rerun 3"
    said = CliRunner().invoke(cli, ["compare", *paths])
    assert said.exit_code == 3 and again in said.stdout
    monkeypatch.setattr("pipeprof.report.wording.command.again", lambda meta: [])
    assert again not in CliRunner().invoke(cli, ["compare", *paths]).stdout, "no command made these"
    assert CliRunner().invoke(cli, ["compare", "--force", *paths]).exit_code == 0


def test_no_ratio_goes_below_minus_a_hundred_percent() -> None:
    rate = MEASURES[0]
    found = difference(rate, Figure(100.0, 50.0, 150.0), Figure(3.0, -3.0, 9.0))
    assert found.low is not None and found.high is not None and found.value is not None
    assert -100 < found.low < found.value < found.high
    share = difference(MEASURES[1], Figure(0.5, 0.4, 0.6), Figure(0.4, 0.3, 0.5))
    assert (share.low, share.high) == pytest.approx((-0.1 - 0.02**0.5, -0.1 + 0.02**0.5))


def test_an_interval_wider_than_any_number_stays_one() -> None:
    found = difference(MEASURES[0], Figure(1e-9, -1.0, 1.0), Figure(1.0, 0.9, 1.1))
    assert found.low is not None and found.high is not None
    assert found.low < 0 < found.high < 10


def test_an_owner_below_a_hundredth_of_a_step_is_left_out(make: Make) -> None:
    found = compare([make(1), make(2, decode=90 * MS)])[0]
    step = next(each for each in found.differences if each.measure.key == "step_ns")
    tiny = Difference(Measure("x", "x", "time", None), Figure(1.0), Figure(9.0), 8.0, 7.0, 9.0)
    assert tiny not in shown.telling(replace(found, owners=(*found.owners, tiny)))
    large = replace(tiny, other=Figure(step.base.value))
    assert large in shown.telling(replace(found, owners=(*found.owners, large)))


def test_markup_in_names_stays_text(make: Make, tmp_path: Path) -> None:
    found = compare([make(1), make(2, emulated=[SCRIPT, "a|b"])])
    markdown = shown.markdown(found)
    assert "<script" not in markdown and "a\\|b" in markdown
    page = Page(shown.write_html(found, tmp_path / "compare.html").read_text())
    assert not [tag for tag, _ in page.elements if tag == "img"]


def commanded(make: Make, seed: int, **changes: Any) -> Analysis:
    return make(seed, kind="bench", command=["pipeprof", "run", f"{seed}.yaml"], **changes)


@pytest.fixture
def repeats(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Answers each rerun of `1.yaml` and `2.yaml` with a made run; lists what was run."""
    ran: list[str] = []

    def answer(words: list[str], out: Path, what: str) -> Analysis:
        ran.append(" ".join(words))
        seed = 10 * len(ran)
        return make(seed) if words == ["run", "1.yaml"] else make(seed, decode=90 * MS)

    monkeypatch.setattr(reruns, "_run", answer)
    monkeypatch.chdir(tmp_path)
    return ran


def test_both_are_run_again_in_turn(make: Make, repeats: list[str]) -> None:
    first, second = (str(commanded(make, seed).run.directory) for seed in (1, 2))
    done = CliRunner().invoke(cli, ["compare", first, second, "--rerun", "3"])
    assert done.exit_code == 0, done.output
    assert repeats == ["run 1.yaml", "run 2.yaml"] * 3
    assert "run2 against run1: 24% slower (95% CI" in " ".join(done.stdout.split())
    said = json.loads(CliRunner().invoke(cli, ["compare", first, second, "--rerun", "2", "--json"]).stdout)
    assert said["relative"] == pytest.approx(94 / 124 - 1, abs=0.03)
    assert said["low"] <= said["relative"] <= said["high"] < 0 and len(said["rates"]) == 2


def test_pairs_on_an_uneven_machine_are_no_verdict(
    make: Make, repeats: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "_unfair", lambda base, other: ["other programs"])
    first, second = (str(commanded(make, seed).run.directory) for seed in (1, 2))
    done = CliRunner().invoke(cli, ["compare", first, second, "--rerun", "2"])
    assert done.exit_code == 3 and done.stdout.startswith("Not a fair comparison")


def test_what_cannot_be_repeated_is_refused(make: Make) -> None:
    with pytest.raises(MeasureError, match="cannot be repeated"):
        reruns.print_repeated(make(1, kind="wrapper"), make(2), 2, False, False)
    secret = make(3, kind="trace", script_words=2, command=["pipeprof", "trace", "x.py", "--key=***"])
    assert again(secret.run.meta) == []


def test_a_run_is_repeated_in_a_new_place(make: Make) -> None:
    words = "python -m pipeprof trace --out runs/a --name a --set loader.num_workers=2 x.py --out model"
    meta = make(1, kind="trace", script_words=3, command=words.split()).run.meta
    assert again(meta) == ["trace", "--set", "loader.num_workers=2", "x.py", "--out", "model"]


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_script_is_traced_again(tmp_path: Path) -> None:
    """With real interpreters, two pairs of them."""
    (tmp_path / "train.py").write_text((SCRIPTS / "plain.py").read_text())
    for name in ("a", "b"):
        command = ["trace", "--out", f"runs/{name}", "--no-report", "-q", "train.py"]
        subprocess.run([sys.executable, "-m", "pipeprof", *command], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "pipeprof", "compare", "a", "b", "--rerun", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert (
        "pairs in turn" in " ".join(done.stdout.split())
        and len(list(tmp_path.glob("runs/rerun-*/*/run.json"))) == 4
    )


def test_a_rate_is_as_sure_as_the_time_of_a_step(tmp_path: Path) -> None:
    plan = Plan(batches=80, workers=1, stages={"decode": 40 * MS}, jitter=0.8)
    found = differences.figures(load(make_run(tmp_path / "run", plan)))
    rate, step = found["throughput_samples_per_s"], found["step_ns"]
    assert rate.value and rate.half and step.value and step.half
    assert rate.half / rate.value == pytest.approx(step.half / step.value)


def test_a_scripts_settings_have_the_names_of_its_arguments(tmp_path: Path) -> None:
    trace = {"kind": "trace", "scenario": None}
    one, two = (
        load(make_run(tmp_path / str(workers), Plan(batches=60, workers=workers), **trace))
        for workers in (1, 2)
    )
    assert ("num_workers", "1", "2") in compare([one, two])[0].settings


def test_without_workers_there_is_none_of_what_only_workers_have(tmp_path: Path) -> None:
    """A script's loader without workers has no depth and no start method: that is known."""
    plan = Plan(batches=60, workers=0)
    without = loader_meta(plan, prefetch=None, start_method=None)
    runs = [
        make_run(tmp_path / "two", replace(plan, workers=2), kind="trace", scenario=None),
        make_run(tmp_path / "none", plan, kind="trace", scenario=None, loaders=[without]),
    ]
    settings = compare([load(run) for run in runs])[0].settings
    assert {("prefetch_factor", "2", "none"), ("multiprocessing_context", "fork", "none")} <= {*settings}
